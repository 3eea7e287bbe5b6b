"""Pickles somewhere in a file of any size: a little is read, and more only where they go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.readers.pickle_machine import MAX_NBYTES, Unpickled
from ckpt_rules.storage import Source

FIRST_NBYTES = 256 << 10
GROWTH = 8


def unpickle_window(
    source: Source, start: int, run: Callable[[bytes], list[Unpickled]]
) -> tuple[bytes, list[Unpickled]]:
    """The bytes from `start` that `run` needed, and the pickles that it found in them, one at least.

    `run` is called again with more bytes where its last pickle came to their end.
    """
    nbytes = FIRST_NBYTES
    while True:
        raw = source.read(start, min(nbytes, MAX_NBYTES))
        pickles = run(raw)
        if pickles[-1].end < len(raw) and not pickles[-1].ended:
            return raw, pickles
        if len(raw) < nbytes:
            break
        nbytes *= GROWTH
    if pickles[-1].ended:
        pickles[-1] = _explained(source, start + len(raw), pickles[-1])
    return raw, pickles


def _explained(source: Source, end: int, pickle: Unpickled) -> Unpickled:
    """The pickle that broke, with the fault of the file in the place of its own."""
    *others, problem = pickle.problems
    if end < source.size:
        fault = ReadProblem(
            "limit", f"the pickle goes on past the {MAX_NBYTES:,} bytes that are read", end, problem.where
        )
    else:
        fault = replace(
            problem, code="cut-short", message=f"the file was cut short, at {end:,} bytes: {problem.message}"
        )
    return replace(pickle, problems=(*others, fault))

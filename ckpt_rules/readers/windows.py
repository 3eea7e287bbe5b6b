"""Pickles somewhere in a file of any size: a little is read, and more only where they continue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.pickle.machine import Unpickled
from ckpt_rules.storage import Source

FIRST_NBYTES = 256 << 10
GROWTH = 8


def unpickle_window(
    source: Source, start: int, budget: Budget, run: Callable[[bytes], list[Unpickled]]
) -> tuple[bytes, list[Unpickled]]:
    """The bytes from `start` that `run` needed, and the pickles that it found in them, one at least.

    `run` is called again with more bytes where its last pickle came to their end.
    """
    nbytes, most, room, opcodes = FIRST_NBYTES, budget.limits.structure * MIB, budget.room, budget.opcodes
    while True:
        budget.room, budget.opcodes = room, opcodes
        raw = source.read(start, min(nbytes, most, max(room, FIRST_NBYTES)))
        # The bytes are there while values are built from them.
        budget.room -= len(raw)
        pickles = run(raw)
        budget.room += len(raw)
        if pickles[-1].end < len(raw) and not pickles[-1].ended:
            return raw, pickles
        if len(raw) < nbytes:
            break
        nbytes *= GROWTH
        del raw, pickles
    if pickles[-1].ended:
        pickles[-1] = _explained(source, start + len(raw), pickles[-1], most)
    return raw, pickles


def _explained(source: Source, end: int, pickle: Unpickled, most: int) -> Unpickled:
    """The pickle that broke, with the fault of the file in the place of its own."""
    *others, problem = pickle.problems
    if end < source.size:
        limit = LimitError.past("structure", f"the pickle continues past the {most:,} bytes that are read", end)
        fault = ReadProblem(limit.code, limit.reason, end, problem.where)
    else:
        fault = replace(
            problem, code="cut-short", message=f"the file was cut short, at {end:,} bytes: {problem.message}"
        )
    return replace(pickle, problems=(*others, fault))

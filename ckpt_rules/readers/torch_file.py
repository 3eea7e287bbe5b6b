"""Files that `torch.save` wrote, and what goes by their names, read without running any of it."""

from __future__ import annotations

from dataclasses import replace

from ckpt_rules.facts.tensors import TorchFile
from ckpt_rules.readers import torch_legacy
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.pickle_machine import Unpickled, unpickle
from ckpt_rules.readers.plain_objects import PlainBuilder
from ckpt_rules.readers.torch_zip import read_zip
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.storage import Source

MAX_PICKLES = 1_000
_USTAR, _USTAR_AT = b"ustar", 257


def read_torch_file(source: Source, path: str, budget: Budget | None = None) -> TorchFile:
    """What a file holds that is named or looks like one of torch's; `budget` is drawn on for it."""
    budget = budget or Budget()
    head = source.read(0, _USTAR_AT + len(_USTAR))
    if head.startswith(b"PK"):
        return read_zip(source, path, budget)
    if head[_USTAR_AT:] == _USTAR:
        return _unknown(source, path, "the file is a tar archive, which torch.load has refused since torch 2.6")
    if _is_legacy(source, budget):
        return torch_legacy.read_legacy(source, path, budget)
    return _read_bare(source, path, head, budget)


def _is_legacy(source: Source, budget: Budget) -> bool:
    """Whether the first pickle, in whatever way it is written, makes torch's magic number."""
    room = budget.room
    _, [first] = unpickle_window(
        source, 0, budget, lambda raw: [unpickle(raw, PlainBuilder(), stream="object", budget=budget)]
    )
    budget.room = room
    return first.value == torch_legacy.MAGIC


def _read_bare(source: Source, path: str, head: bytes, budget: Budget) -> TorchFile:
    """A pickle by `pickle.dump`, or several: a loader runs the first, another program may run them all."""
    pickles = unpickle_window(source, 0, budget, lambda raw: _all(raw, budget))[1]
    first = pickles[0]
    if not first.readable and not head.startswith(b"\x80"):
        message = "the file is neither a zip archive nor a pickle, so torch.save did not write it"
        return _unknown(source, path, message, first)
    log = ProblemLog()
    log.extend(first.problems)
    if first.readable:
        if not path.lower().endswith((".pkl", ".pickle")):
            wrote = "pickle.dump wrote it, and torch.load refuses it"
            log.add("not-torch", f"the file is a bare pickle without torch's magic number: {wrote}", 0)
        if first.end < source.size:
            message = f"{source.size - first.end:,} bytes follow the end of the pickle"
            log.add("trailing-data", message, first.end, fatal=False)
    globals_ = tuple(g for pickle in pickles for g in pickle.globals)
    return TorchFile(path, source.size, "pickle", first.value, globals_, first.protocol, first.readable, log.all())


def _all(raw: bytes, budget: Budget) -> list[Unpickled]:
    pickles = [unpickle(raw, PlainBuilder(), stream="object", budget=budget)]
    while pickles[-1].readable and pickles[-1].end < len(raw) and len(pickles) < MAX_PICKLES:
        stream = f"object {len(pickles) + 1}"
        further = unpickle(raw, PlainBuilder(), stream=stream, budget=budget, start=pickles[-1].end)
        pickles.append(replace(further, value=None))
    return pickles


def _unknown(source: Source, path: str, message: str, pickle: Unpickled | None = None) -> TorchFile:
    log = ProblemLog()
    log.add("not-torch", message, 0)
    globals_ = pickle.globals if pickle else ()
    return TorchFile(path, source.size, "unknown", None, globals_, readable=False, problems=log.all())

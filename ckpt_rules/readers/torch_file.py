"""Files that `torch.save` wrote, and whatever else a loader would take for one, read without running any of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ckpt_rules.facts.tensors import GlobalRef, ReadProblem, TorchFile
from ckpt_rules.readers import torch_legacy
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage, ProblemLog
from ckpt_rules.readers.disguises import numpy_pickle, tar_pickles, unpacked
from ckpt_rules.readers.enclosed import Enclosed, Memory
from ckpt_rules.readers.pickle_machine import Unpickled, unpickle
from ckpt_rules.readers.plain_objects import PlainBuilder
from ckpt_rules.readers.torch_zip import read_zip
from ckpt_rules.readers.windows import FIRST_NBYTES, unpickle_window
from ckpt_rules.storage import Source

_USTAR, _USTAR_AT = b"ustar", 257

Reading = tuple[TorchFile, list[Enclosed]]
Reader = Callable[[Source, str, Budget], Reading]


def read_torch_file(
    source: Source, path: str, budget: Budget | None = None, *, depth: int = 0, read: Reader | None = None
) -> TorchFile:
    """What a file holds that is named or looks like one of torch's.

    budget: drawn on for it
    depth:  how many files this one is enclosed in
    read:   reads the file itself, and leaves what is enclosed in it to this function
    """
    budget = budget or Budget()
    if depth == 0:
        budget.opcodes = budget.limits.opcodes
    file, enclosed = (read or _read)(source, path, budget)
    inner = [_inside(each, budget, depth + 1) for each in enclosed] if depth < budget.limits.nesting else []
    found = [(stream, part) for stream, part in inner if part.readable or part.globals]
    globals_ = [g._replace(stream=f"{stream} > {g.stream}") for stream, part in found for g in part.globals]
    nested = [n for stream, part in found for n in (stream, *(f"{stream} > {further}" for further in part.nested))]
    return replace(file, globals=file.globals + tuple(globals_), nested=tuple(nested)) if nested else file


def _inside(enclosed: Enclosed, budget: Budget, depth: int) -> tuple[str, TorchFile]:
    stream = f"{enclosed.where} at byte {enclosed.at:,}"
    room = budget.room
    part = replace(read_torch_file(Memory(enclosed.raw), stream, budget, depth=depth), value=None)
    budget.room = room
    return stream, part


def _read(source: Source, path: str, budget: Budget) -> Reading:
    head = source.read(0, _USTAR_AT + len(_USTAR))
    if head.startswith(b"PK"):
        return read_zip(source, path, budget)
    if head[_USTAR_AT:] == _USTAR:
        message = "the file is a tar archive, which torch.load has refused since torch 2.6"
        return _disguised(source, path, message, tar_pickles(source, budget))
    if head.startswith(b"\x93NUMPY"):
        message = "the file is a NumPy array, which torch.load does not read"
        return _disguised(source, path, message, numpy_pickle(source, budget))
    if head.startswith(b"\x1f\x8b"):
        return _read_gzip(source, path, budget)
    if _is_legacy(source, budget):
        return torch_legacy.read_legacy(source, path, budget)
    return _read_bare(source, path, head, budget)


def _is_legacy(source: Source, budget: Budget) -> bool:
    """Whether the first pickle, in whatever way it is written, makes torch's magic number; one that goes on for long does not."""
    room, opcodes = budget.room, budget.opcodes
    raw = source.read(0, FIRST_NBYTES)
    first = unpickle(raw, PlainBuilder(budget.limits), stream="object", budget=budget)
    budget.room, budget.opcodes = room, opcodes
    return first.value == torch_legacy.MAGIC


def _read_bare(source: Source, path: str, head: bytes, budget: Budget) -> Reading:
    """A pickle by `pickle.dump`, or several: a loader runs the first, another program may run them all."""
    return bare_pickles(source, path, head, unpickle_window(source, 0, budget, lambda raw: _all(raw, budget))[1])


def bare_pickles(source: Source, path: str, head: bytes, pickles: list[Unpickled]) -> Reading:
    """What a file of pickles is, once they are read."""
    first = pickles[0]
    if not first.readable and not head.startswith(b"\x80"):
        message = "the file is neither a zip archive nor a pickle, so torch.save did not write it"
        return _disguised(source, path, message, [first])
    log = ProblemLog()
    log.extend(first.problems)
    if first.readable:
        if not path.lower().endswith((".pkl", ".pickle")):
            wrote = "pickle.dump wrote it, and torch.load refuses it"
            log.add("not-torch", f"the file is a bare pickle without torch's magic number: {wrote}", 0)
        if first.end < source.size:
            message = f"{source.size - first.end:,} bytes follow the end of the pickle"
            log.add("trailing-data", message, first.end, fatal=False)
    file = TorchFile(
        path, source.size, "pickle", first.value, _globals(pickles), first.protocol, first.readable, log.all()
    )
    return file, _enclosed(pickles)


def _all(raw: bytes, budget: Budget) -> list[Unpickled]:
    pickles = [unpickle(raw, PlainBuilder(budget.limits), stream="object", budget=budget)]
    while pickles[-1].readable and pickles[-1].end < len(raw):
        if len(pickles) > budget.limits.enclosed:
            limit = LimitError.past("enclosed", f"more than {budget.limits.enclosed:,} pickles follow one another")
            past = ReadProblem(limit.code, limit.reason, pickles[-1].end)
            pickles[0] = replace(pickles[0], problems=(*pickles[0].problems, past))
            break
        stream = f"object {len(pickles) + 1}"
        further = unpickle(raw, PlainBuilder(budget.limits), stream=stream, budget=budget, start=pickles[-1].end)
        pickles.append(replace(further, value=None))
    return pickles


def _read_gzip(source: Source, path: str, budget: Budget) -> Reading:
    log = ProblemLog()
    log.add("not-torch", "the file is compressed with gzip, which torch.load does not read", 0)
    enclosed = []
    try:
        enclosed.append(Enclosed("gzip", 0, unpacked(source, budget)))
    except Damage as damage:
        log.note(damage)
    return TorchFile(path, source.size, "unknown", None, readable=False, problems=log.all()), enclosed


def _disguised(source: Source, path: str, message: str, pickles: list[Unpickled]) -> Reading:
    log = ProblemLog()
    log.add("not-torch", message, 0)
    file = TorchFile(path, source.size, "unknown", None, _globals(pickles), readable=False, problems=log.all())
    return file, _enclosed(pickles)


def _globals(pickles: list[Unpickled]) -> tuple[GlobalRef, ...]:
    return tuple(g for pickle in pickles for g in pickle.globals)


def _enclosed(pickles: list[Unpickled]) -> list[Enclosed]:
    return [each for pickle in pickles for each in pickle.enclosed]

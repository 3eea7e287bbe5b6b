"""Files that `torch.save` wrote, and whatever else a loader would take for one, read without running any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from ckpt_rules.facts.tensors import GlobalRef, ReadProblem, TorchFile
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage, ProblemLog
from ckpt_rules.readers.pickle.enclosed import Enclosed, Memory, Window
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder
from ckpt_rules.readers.pickle.unmarked import calls_something, is_tar, looks_loadable
from ckpt_rules.readers.torch import legacy as torch_legacy
from ckpt_rules.readers.torch.archive import read_zip
from ckpt_rules.readers.torch.disguises import (
    Packing,
    all_pickles,
    foreign_packing,
    numpy_pickle,
    packing_of,
    pickles_at,
    tar_pickles,
    unpacked,
)
from ckpt_rules.readers.windows import FIRST_NBYTES, unpickle_window
from ckpt_rules.readers.zip.oddities import PACKED
from ckpt_rules.readers.zip.tail import zip_after_other_bytes
from ckpt_rules.storage import Source

HEAD_NBYTES = 1024
LIMIT = "limit"
_USTAR_AT = 257

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
    found = [each for each in inner if each.part.readable or each.part.globals]
    globals_ = [g._replace(stream=f"{each.stream} > {g.stream}") for each in found for g in each.part.globals]
    nested = [name for each in found for name in each.names()]
    if not found:
        return file
    problems = (*file.problems, *(limit for each in found for limit in each.limits()))
    return replace(file, globals=file.globals + tuple(globals_), nested=tuple(nested), problems=problems)


class _Inner(NamedTuple):
    """What a part of a file holds, by the name under which it is reported."""

    stream: str
    part: TorchFile
    usual: bool

    def names(self) -> list[str]:
        """Itself, unless archives of the kind hold such parts by design, and what is enclosed in it."""
        return [*([] if self.usual else [self.stream]), *(f"{self.stream} > {further}" for further in self.part.nested)]

    def limits(self) -> Iterator[ReadProblem]:
        """The limits that it came to, where it asks for something: other bytes only happen to look like a pickle."""
        for fault in self.part.problems if self.part.globals else ():
            if fault.code == LIMIT:
                yield replace(fault, where=self.stream, offset=None, fatal=False)


def _inside(enclosed: Enclosed, budget: Budget, depth: int) -> _Inner:
    stream = f"{enclosed.where} at byte {enclosed.at:,}"
    room = budget.room
    source = Memory(enclosed.raw) if isinstance(enclosed.raw, bytes) else enclosed.raw
    part = replace(read_torch_file(source, stream, budget, depth=depth), value=None)
    budget.room = room
    return _Inner(stream, part, enclosed.usual)


def _read(source: Source, path: str, budget: Budget) -> Reading:
    head = source.read(0, HEAD_NBYTES)
    if head.startswith(b"PK"):
        return read_zip(source, path, budget)
    if head.startswith(b"\x93NUMPY"):
        message = "the file is a NumPy array, which torch.load does not read"
        return _disguised(source, path, message, numpy_pickle(source, budget))
    if is_tar(head):
        return _read_tar(source, path, head, budget)
    if packing := packing_of(head):
        return _read_packed(source, path, packing, budget)
    if foreign := foreign_packing(head):
        return _unread(source, path, foreign), []
    if (start := zip_after_other_bytes(source, head)) is not None:
        return _with_zip(source, path, _read_unpacked(source, path, head, budget), start, budget)
    return _read_unpacked(source, path, head, budget)


def _read_unpacked(source: Source, path: str, head: bytes, budget: Budget) -> Reading:
    if _is_legacy(source, budget):
        return torch_legacy.read_legacy(source, path, budget)
    return _read_bare(source, path, head, budget)


def _read_tar(source: Source, path: str, head: bytes, budget: Budget) -> Reading:
    """A tar archive, whose first bytes, the name of a member, may be a pickle of their own."""
    message = "the file is a tar archive, which torch.load has refused since torch 2.6"
    pickles, enclosed = tar_pickles(source, budget)
    if looks_loadable(head[:_USTAR_AT], source.size):
        pickles += [each for each in pickles_at(source, 0, "object", budget) if calls_something(each.globals)]
    file, further = _disguised(source, path, message, pickles)
    return file, [*further, *enclosed]


def _is_legacy(source: Source, budget: Budget) -> bool:
    """Whether the first pickle, in whatever way it is written, makes torch's magic number; one that continues for long does not."""
    room, opcodes = budget.room, budget.opcodes
    raw = source.read(0, FIRST_NBYTES)
    first = unpickle(raw, PlainBuilder(budget.limits), stream="object", budget=budget)
    budget.room, budget.opcodes = room, opcodes
    return first.value == torch_legacy.MAGIC


def _read_bare(source: Source, path: str, head: bytes, budget: Budget) -> Reading:
    """A pickle by `pickle.dump`, or several: a loader runs the first, another program may run them all."""
    return bare_pickles(source, path, head, unpickle_window(source, 0, budget, lambda raw: all_pickles(raw, budget))[1])


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


def _unread(source: Source, path: str, packing: str) -> TorchFile:
    log = ProblemLog()
    log.add("not-torch", f"the file is compressed with {packing}, which torch.load does not read", 0)
    message = f"the file is compressed with {packing}, which is not unpacked here: what a loader would run was not seen"
    log.add(PACKED, message, 0, fatal=False)
    return TorchFile(path, source.size, "unknown", None, readable=False, problems=log.all())


def _with_zip(source: Source, path: str, reading: Reading, start: int, budget: Budget) -> Reading:
    """What a file holds that ends with a zip archive, which begins at byte `start` or is counted from the file's first."""
    file, enclosed = reading
    if start:
        return file, [*enclosed, Enclosed("zip archive", start, Window(source, start, source.size - start))]
    archive, further = read_zip(source, path, budget)
    return replace(file, globals=file.globals + archive.globals), [*enclosed, *further]


def _read_packed(source: Source, path: str, packing: Packing, budget: Budget) -> Reading:
    log = ProblemLog()
    log.add("not-torch", f"the file is compressed with {packing.name}, which torch.load does not read", 0)
    enclosed = []
    try:
        enclosed.append(Enclosed(packing.name, 0, unpacked(source, packing, budget), usual=True))
    except Damage as damage:
        log.note(damage)
    return TorchFile(path, source.size, "unknown", None, readable=False, problems=log.all()), enclosed


def _disguised(source: Source, path: str, message: str, pickles: list[Unpickled]) -> Reading:
    log = ProblemLog()
    log.add("not-torch", message, 0)
    log.extend(p for pickle in pickles if pickle.globals for p in pickle.problems if p.code == LIMIT)
    file = TorchFile(path, source.size, "unknown", None, _globals(pickles), readable=False, problems=log.all())
    return file, _enclosed(pickles)


def _globals(pickles: list[Unpickled]) -> tuple[GlobalRef, ...]:
    return tuple(g for pickle in pickles for g in pickle.globals)


def _enclosed(pickles: list[Unpickled]) -> list[Enclosed]:
    return [each for pickle in pickles for each in pickle.enclosed]

"""Files that `torch.save` wrote before torch 1.6: five pickles, then each storage as an element count and its bytes.

The pickles: magic number, protocol, system information, the object, the keys of the storages in their order.
Source: `_legacy_load` in torch/serialization.py.
"""

from __future__ import annotations

from typing import NamedTuple

from ckpt_rules.facts.tensors import TensorInfo, TorchFile
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.readers.pickle.enclosed import Enclosed
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder
from ckpt_rules.readers.torch.objects import Stored, TorchBuilder
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.storage import Source

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STREAMS = ("magic number", "protocol", "system information", "object", "storage keys")
_COUNT_NBYTES = 8
_OBJECT = 3


class _WithoutStorages(TorchBuilder):
    """For the pickles around the object, which refer to no storages."""

    persistent = PlainBuilder.persistent


class _Pickles(NamedTuple):
    """The pickles up to the first that broke, and the storages that the object refers to."""

    raw: bytes
    found: list[Unpickled]
    storages: dict[str, TensorInfo]


def read_legacy(source: Source, path: str, budget: Budget) -> tuple[TorchFile, list[Enclosed]]:
    """What a file that starts with the magic number holds, and what is enclosed in its pickles."""
    log = ProblemLog()
    pickles = _read_pickles(source, budget)
    found, last = pickles.found, pickles.found[-1]
    value, whole = None, len(found) == len(STREAMS) and last.readable
    for each in found:
        log.extend((*each.problems, *([each.refused] if each.refused else [])))
    if len(found) > 1 and found[1].readable and found[1].value != PROTOCOL:
        message = f"the file says that it follows protocol {found[1].value!r:.40}; torch knows {PROTOCOL:,} only"
        log.add("not-torch", message, found[0].end, STREAMS[1])
    if whole:
        places = _places(source, last, pickles.storages, log)
        value = _read_object(source, pickles, places, log, budget)
    globals_ = tuple(g for each in found for g in each.globals)
    protocol = found[_OBJECT].protocol if len(found) > _OBJECT else last.protocol
    enclosed = [e for each in found for e in each.enclosed]
    return TorchFile(path, source.size, "legacy", value, globals_, protocol, whole, log.all()), enclosed


def _read_pickles(source: Source, budget: Budget) -> _Pickles:
    builders: list[TorchBuilder] = []

    def run(raw: bytes) -> list[Unpickled]:
        # The places of the storages come after the object that refers to them, which is therefore read twice.
        builders.append(
            TorchBuilder(lambda _: Stored(None, -1), source.read, ProblemLog(), legacy=True, limits=budget.limits)
        )
        around = _WithoutStorages(lambda _: None, source.read, ProblemLog())
        found = [unpickle(raw, around, stream=STREAMS[0], budget=budget)]
        for number, stream in enumerate(STREAMS[1:], 1):
            if found[-1].readable:
                builder = builders[-1] if number == _OBJECT else around
                found.append(unpickle(raw, builder, stream=stream, budget=budget, start=found[-1].end))
        return found

    raw, found = unpickle_window(source, 0, budget, run)
    return _Pickles(raw, found, builders[-1].storages)


def _read_object(
    source: Source, pickles: _Pickles, places: dict[str, Stored], log: ProblemLog, budget: Budget
) -> object:
    builder = TorchBuilder(places.get, source.read, log, legacy=True, limits=budget.limits)
    start = pickles.found[_OBJECT - 1].end
    return unpickle(pickles.raw, builder, stream=STREAMS[_OBJECT], budget=budget, start=start).value


def _places(source: Source, keys: Unpickled, storages: dict[str, TensorInfo], log: ProblemLog) -> dict[str, Stored]:
    """Where the bytes of each storage lie; those behind a fault, reported here once, are nowhere but not missing."""
    places = {key: Stored(None, storage.nbytes) for key, storage in storages.items()}
    at = keys.end
    listed = keys.value
    if not isinstance(listed, list):
        message = f"the file lists its storages as {listed!r:.40}, which is not a list"
        log.add("pickle", message, at, STREAMS[-1])
        return places
    try:
        for key in listed:
            at = _place(source, at, key, storages, places)
    except Damage as damage:
        log.note(damage)
        return places
    if absent := sorted(storages.keys() - {key for key in listed if type(key) is str}):
        message = f"{len(absent):,} storages that the object refers to are not in the file, such as '{absent[0]}'"
        log.add("storage-missing", message, keys.end, absent[0])
    elif at < source.size:
        message = f"{source.size - at:,} bytes follow the last storage"
        log.add("trailing-data", message, at, fatal=False)
    return places


def _place(source: Source, at: int, key: object, storages: dict[str, TensorInfo], places: dict[str, Stored]) -> int:
    """Find one storage at `at`; the byte behind it."""
    storage = storages.get(key) if type(key) is str else None
    if storage is None or type(key) is not str:
        raise Damage("storage-size", f"the storage {key!r:.40} belongs to no tensor, so its size is unknown", at)
    end = at + _COUNT_NBYTES + storage.nbytes
    if at + _COUNT_NBYTES > source.size:
        raise _cut(source, at, key, storage)
    count = int.from_bytes(read_exactly(source, at, _COUNT_NBYTES, key), "little", signed=True)
    if count != storage.shape[0]:
        needed = f"its tensors need {storage.shape[0]:,}"
        raise Damage("storage-size", f"the storage '{key}' has {count:,} elements where {needed}", at, key)
    if end > source.size:
        raise _cut(source, at, key, storage)
    places[key] = Stored(at + _COUNT_NBYTES, storage.nbytes)
    return end


def _cut(source: Source, at: int, key: str, storage: TensorInfo) -> Damage:
    place = f"of {storage.nbytes:,} bytes starts at byte {at:,}, and the file ends at {source.size:,}"
    return Damage("cut-short", f"the file was cut short: the storage '{key}' {place}", source.size, key)

"""`.metadata` of torch.distributed.checkpoint.

https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpt_rules.facts.distributed import Chunk, DistributedMetadata, StoredItems, StoredTensor
from ckpt_rules.facts.tensors import Opaque, ReadProblem, TorchFile
from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.dcp.names import ItemTable, Names
from ckpt_rules.readers.dcp.objects import (
    is_object,
    planned_names,
    state_of,
    stored_item,
    stored_tensor,
    transforms_of,
)
from ckpt_rules.readers.pickle.machine import unpickle
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder
from ckpt_rules.readers.torch.file import Reading, bare_pickles, read_torch_file
from ckpt_rules.storage import Source

LARGE_NBYTES = MIB
"""A larger one is read without building an object for each tensor."""

_PROTOCOLS = (b"\x80\x04", b"\x80\x05")


def read_metadata(source: Source, path: str, budget: Budget) -> tuple[TorchFile, DistributedMetadata]:
    """The file and what it says; of a large one, `value` is None, and what it says takes a few times its size."""
    head = source.read(0, 2)
    if source.size > LARGE_NBYTES and head in _PROTOCOLS:
        if source.size > budget.limits.metadata * MIB:
            return _too_large(source, path, budget)
        room, opcodes = budget.room, budget.opcodes
        if found := _read_large(source, path, budget):
            return found
        budget.room, budget.opcodes = room, opcodes
    file = read_torch_file(source, path, budget)
    return file, distributed_metadata(file)


def distributed_metadata(file: TorchFile) -> DistributedMetadata:
    """The metadata in a file; with a `problem`, and empty, where it holds none."""
    state = state_of(file.value)
    kinds, places = state.get("state_dict_metadata"), state.get("storage_data")
    if not isinstance(kinds, Mapping) or not isinstance(places, Mapping):
        # That a bare pickle is not a file of torch.save is as it should be here.
        found = next((p for p in file.problems if p.fatal and p.code != "not-torch"), None)
        problem = found or ReadProblem("no-metadata", "it holds no metadata of a distributed checkpoint")
        return DistributedMetadata(file.path, {}, frozenset(), StoredItems(), problem=problem)
    if not isinstance(state.get("storage_meta"), Opaque | None):
        problem = ReadProblem("storage-meta", "storage_meta is neither None nor an object of the class StorageMeta")
        return DistributedMetadata(file.path, {}, frozenset(), StoredItems(), problem=problem)
    tensors = {str(n): t for n, value in kinds.items() if (t := stored_tensor(value)) is not None}
    objects = frozenset(str(n) for n, v in kinds.items() if is_object(v))
    table = ItemTable(Names())
    for pair in places.items():
        if item := stored_item(*pair):
            table.append(item)
            table.transforms.update(transforms_of(pair[1]))
    planned = planned_names(state.get("planner_data"))
    return DistributedMetadata(
        file.path, tensors, objects, table.beside(file.path), frozenset(table.transforms), planned=planned
    )


def together(parts: Sequence[DistributedMetadata]) -> DistributedMetadata:
    """What the metadata of each rank say of one save: the pieces of a tensor put together, what each has as a whole once."""
    broken = next((part for part in parts if part.problem is not None), parts[0])
    pieces: dict[str, dict[Chunk, None]] = {}
    tensors: dict[str, StoredTensor] = {}
    table = ItemTable(Names())
    placed: set[tuple[str, tuple[int, ...]]] = set()
    for part in parts:
        for name, tensor in part.tensors.items():
            first = tensors.setdefault(name, tensor)
            if first.shape == tensor.shape and not first.is_whole:
                pieces.setdefault(name, dict.fromkeys(first.chunks)).update(dict.fromkeys(tensor.chunks))
        for item in part.items:
            if (place := (item.name, item.corner)) not in placed:
                placed.add(place)
                table.append(item)
    tensors |= {name: tensors[name]._replace(chunks=tuple(chunks)) for name, chunks in pieces.items()}
    objects = frozenset().union(*(part.objects for part in parts)) - tensors.keys()
    transforms = frozenset().union(*(part.transforms for part in parts))
    planned = frozenset().union(*(part.planned for part in parts))
    return DistributedMetadata(broken.path, tensors, objects, table.items, transforms, broken.problem, planned)


def _read_large(source: Source, path: str, budget: Budget) -> tuple[TorchFile, DistributedMetadata] | None:
    """The same without building what repeats; None where the pickle is not as torch writes it."""
    from ckpt_rules.readers.dcp.machine import MetadataMachine

    machines: list[MetadataMachine] = []

    def made(*given: object) -> MetadataMachine:
        machines.append(MetadataMachine(*given))  # type: ignore[arg-type]
        return machines[-1]

    def read(source: Source, path: str, budget: Budget) -> Reading:
        data = source.read(0, source.size)
        pickle = unpickle(data, PlainBuilder(budget.limits), stream="object", budget=budget, made=made)
        return bare_pickles(source, path, data[:2], [pickle])

    file = read_torch_file(source, path, budget, read=read)
    metadata = distributed_metadata(file)
    machine = machines[0]
    state = state_of(file.value)
    if metadata.problem or any(state.get(name) is not target for name, target in machine.filled.items()):
        return None
    # A pair that is set by itself, as the last of a thousand and one is, is left in the dictionary.
    tensors, table = machine.tensors, machine.places.table
    tensors.found.update(metadata.tensors)
    items = table.beside(path)
    for item in metadata.items:
        table.append(item)
    return replace(file, value=None), DistributedMetadata(
        path, tensors.found, metadata.objects | tensors.objects, items, metadata.transforms | table.transforms
    )


def _too_large(source: Source, path: str, budget: Budget) -> tuple[TorchFile, DistributedMetadata]:
    most = budget.limits.metadata
    limit = LimitError.past(
        "metadata", f"the metadata has {source.size:,} bytes, more than the {most:,} MiB that are read"
    )
    log = ProblemLog()
    log.note(limit)
    file = TorchFile(path, source.size, "pickle", None, readable=False, problems=log.all())
    return file, distributed_metadata(file)

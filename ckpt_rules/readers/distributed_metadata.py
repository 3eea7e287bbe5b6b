"""`.metadata` of torch.distributed.checkpoint, from the inert objects that reading its pickle gave.

https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from ckpt_rules.facts.distributed import Chunk, DistributedMetadata, StoredItem, StoredTensor
from ckpt_rules.facts.tensors import Opaque, ReadProblem, TorchFile
from ckpt_rules.facts.training import is_count
from ckpt_rules.readers.torch_types import MAX_DIMENSIONS

_TENSOR, _BYTES = "TensorStorageMetadata", "BytesStorageMetadata"


def distributed_metadata(file: TorchFile) -> DistributedMetadata:
    """The metadata in a file; with a `problem`, and empty, where it holds none."""
    state = _state(file.value)
    kinds, places = state.get("state_dict_metadata"), state.get("storage_data")
    if not isinstance(kinds, Mapping) or not isinstance(places, Mapping):
        # That a bare pickle is no file of torch.save is as it should be here.
        found = next((p for p in file.problems if p.fatal and p.code != "not-torch"), None)
        problem = found or ReadProblem("no-metadata", "it holds no metadata of a distributed checkpoint")
        return DistributedMetadata(file.path, {}, frozenset(), (), problem)
    folder = file.path.rpartition("/")[0]
    tensors = {str(n): t for n, value in kinds.items() if (t := _tensor(value)) is not None}
    objects = frozenset(str(n) for n, v in kinds.items() if isinstance(v, Opaque) and v.type.endswith(_BYTES))
    return DistributedMetadata(file.path, tensors, objects, tuple(_items(places, f"{folder}/" if folder else "")))


def _tensor(value: object) -> StoredTensor | None:
    if not isinstance(value, Opaque) or not value.type.endswith(_TENSOR):
        return None
    state = _state(value)
    properties = state.get("properties")
    fields = properties.state if isinstance(properties, Opaque) else None
    dtype = fields.get("dtype") if isinstance(fields, Mapping) else next(islice(_sequence(fields), 1), None)
    chunks = [(_size(_state(c).get("offsets")), _size(_state(c).get("sizes"))) for c in _sequence(state.get("chunks"))]
    return StoredTensor(
        str(dtype).removeprefix("torch."), _size(state.get("size")), tuple(Chunk(*chunk) for chunk in chunks)
    )


def _items(places: Mapping[object, object], folder: str) -> Iterator[StoredItem]:
    for index, info in places.items():
        named, place = _state(index), _state(info)
        name, corner = named.get("fqn"), _size(named.get("offset"))
        path, start, nbytes = (place.get(key) for key in ("relative_path", "offset", "length"))
        if isinstance(path, str) and is_count(start) and is_count(nbytes):
            yield StoredItem(str(name), f"{folder}{path}", int(start), int(nbytes), corner)


def _size(value: object) -> tuple[int, ...]:
    inner = value.args[0] if isinstance(value, Opaque) and value.args else value
    return tuple(int(n) for n in islice(_sequence(inner), MAX_DIMENSIONS) if is_count(n))


def _sequence(value: object) -> Iterator[object]:
    return iter(value) if isinstance(value, list | tuple) else iter(())


def _state(value: object) -> Mapping[object, object]:
    state = value.state if isinstance(value, Opaque) else None
    return state if isinstance(state, Mapping) else {}

"""Tensors and chunks of a `.metadata`, from the inert objects that its pickle made.

https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from ckpt_rules.facts.distributed import Chunk, StoredItem, StoredTensor
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.facts.training import is_count
from ckpt_rules.readers.torch_types import MAX_DIMENSIONS

LARGEST = 1 << 62
_TENSOR, _BYTES = "TensorStorageMetadata", "BytesStorageMetadata"


def stored_tensor(value: object) -> StoredTensor | None:
    """What a value of `state_dict_metadata` says of a tensor; None where it is no tensor's."""
    if not isinstance(value, Opaque) or not value.type.endswith(_TENSOR):
        return None
    state = state_of(value)
    properties = state.get("properties")
    fields = properties.state if isinstance(properties, Opaque) else None
    dtype = fields.get("dtype") if isinstance(fields, Mapping) else next(islice(_sequence(fields), 1), None)
    if not all(state_of(chunk).keys() >= {"offsets", "sizes"} for chunk in _sequence(state.get("chunks"))):
        return None  # a load asks each for these attributes
    chunks = [
        (_size(state_of(c).get("offsets")), _size(state_of(c).get("sizes"))) for c in _sequence(state.get("chunks"))
    ]
    return StoredTensor(
        str(dtype).removeprefix("torch."), _size(state.get("size")), tuple(Chunk(*chunk) for chunk in chunks)
    )


def is_object(value: object) -> bool:
    """Whether a value of `state_dict_metadata` stands for an object that is no tensor."""
    return isinstance(value, Opaque) and value.type.endswith(_BYTES)


def planned_names(value: object) -> frozenset[str]:
    """The names in `planner_data`, where it is what torch's own planner notes: each with the path that it was flattened from."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    return frozenset(
        name
        for name, path in pairs
        if isinstance(name, str) and isinstance(path, list | tuple) and ".".join(map(str, path)) == name
    )


def stored_item(index: object, info: object) -> StoredItem | None:
    """Where a pair of `storage_data` says that a chunk lies, in a file beside the `.metadata`; None where it does not."""
    named, place = state_of(index), state_of(info)
    path, start, nbytes = (place.get(key) for key in ("relative_path", "offset", "length"))
    written = place.get("transform_descriptors")
    if written and not isinstance(written, list | tuple):
        return None  # which a load runs through, and stops
    whole = isinstance(start, int) and isinstance(nbytes, int)
    if isinstance(path, str) and whole and is_count(start) and is_count(nbytes) and max(start, nbytes) <= LARGEST:
        return StoredItem(str(named.get("fqn")), path, int(start), int(nbytes), _size(named.get("offset")))
    return None


def transforms_of(info: object) -> tuple[str, ...]:
    """The stream extensions through which a chunk was written, `stream.zstd`; none where it is as torch.save wrote it."""
    named = state_of(info).get("transform_descriptors")
    return tuple(name for name in _sequence(named) if isinstance(name, str))


def state_of(value: object) -> Mapping[object, object]:
    """The attributes of an object; none where it has no dictionary of them."""
    state = value.state if isinstance(value, Opaque) else None
    return state if isinstance(state, Mapping) else {}


def _size(value: object) -> tuple[int, ...]:
    inner = value.args[0] if isinstance(value, Opaque) and value.args else value
    return tuple(int(n) for n in islice(_sequence(inner), MAX_DIMENSIONS) if is_count(n))


def _sequence(value: object) -> Iterator[object]:
    return iter(value) if isinstance(value, list | tuple) else iter(())

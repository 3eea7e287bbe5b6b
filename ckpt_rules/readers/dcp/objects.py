"""Tensors and chunks of a `.metadata`, from the inert objects that its pickle made.

https://github.com/pytorch/pytorch/blob/main/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from ckpt_rules.facts.distributed import Chunk, StoredItem, StoredTensor
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.facts.training import is_count
from ckpt_rules.readers.torch.types import MAX_DIMENSIONS

LARGEST = 1 << 62
_MEMORY_FORMAT = 3
_TENSOR, _BYTES = "TensorStorageMetadata", "BytesStorageMetadata"


def stored_tensor(value: object) -> StoredTensor | None:
    """What a value of `state_dict_metadata` says of a tensor; None where it is not a tensor's."""
    if not isinstance(value, Opaque) or not value.type.endswith(_TENSOR):
        return None
    state = state_of(value)
    properties = state.get("properties")
    fields = properties.state if isinstance(properties, Opaque) else None
    dtype = fields.get("dtype") if isinstance(fields, Mapping) else next(islice(_sequence(fields), 1), None)
    boxes = [state_of(chunk) for chunk in _sequence(state.get("chunks"))]
    # A load compares the size with a torch.Size, which no list equals, and takes numbers out of the others.
    size = state.get("size")
    odd = isinstance(size, list) or not _is_size(size)
    if odd or not all(_is_size(box.get(key)) for box in boxes for key in ("offsets", "sizes")):
        return None
    if isinstance(fields, tuple) and len(fields) > _MEMORY_FORMAT and not _is_memory_format(fields[_MEMORY_FORMAT]):
        return None  # without it the properties can't be built, and with them nothing
    chunks = [(_size(b.get("offsets")), _size(b.get("sizes"))) for b in boxes]
    return StoredTensor(
        str(dtype).removeprefix("torch."), _size(state.get("size")), tuple(Chunk(*chunk) for chunk in chunks)
    )


def is_object(value: object) -> bool:
    """Whether a value of `state_dict_metadata` stands for an object that is not a tensor."""
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
    if written and not (isinstance(written, list | tuple) and all(isinstance(name, str) for name in written)):
        return None  # a load looks up each by its name, and stops
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


def _is_size(value: object) -> bool:
    if isinstance(value, Opaque):
        return value.type == "torch.Size"
    return isinstance(value, list | tuple) and all(type(n) is int for n in value[:MAX_DIMENSIONS])


def _is_memory_format(value: object) -> bool:
    """Whether it is of torch's enumeration, or taken from it by name, as Python 3.11.0 to 3.11.3 pickle it."""
    return isinstance(value, Opaque) and value.type.endswith(("_MEM_FORMAT_ENCODING", ".getattr"))


def _sequence(value: object) -> Iterator[object]:
    return iter(value) if isinstance(value, list | tuple) else iter(())

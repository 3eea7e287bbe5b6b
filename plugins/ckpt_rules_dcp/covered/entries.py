"""Whether `.metadata` agrees with itself, and with the headers of what lies in the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from math import prod

from ckpt_rules import (
    DTYPE_BITS,
    Checkpoint,
    Chunk,
    DistributedMetadata,
    FactUnavailable,
    Problem,
    StoredItem,
    TensorInfo,
)
from ckpt_rules_dcp.covered.problems import MOST, SHOWN, bounded, problem

_LOOKED_AT = 256
_SMALL_NBYTES = 1 << 16
_MOST_ITEMS = 200_000


def wrong_entries(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[Problem]:
    """Places without a description, names that were planned and are gone, and chunks where something else lies."""
    for name, more in bounded(_undescribed(metadata)):
        words = f"{metadata.path} gives a place for {name}, but no usable description of it: a load stops{more}"
        yield problem(words, metadata.path, tensor=name)
    if gone := _lost(metadata):
        words = (
            f"{metadata.path} lacks {len(gone):,} of the {len(metadata.planned):,} entries of the save plan: "
            f"{', '.join(gone[:SHOWN])}{' …' if len(gone) > SHOWN else ''}; a load that requests them stops with "
            "'Missing key'"
        )
        yield problem(words, metadata.path, data={"names": gone[:100]}, tensor=gone[0])
    for item, fault in islice(_misplaced(checkpoint, metadata), MOST):
        yield problem(f"{item.name} {fault}: the file holds other data there", item.path, item)


def _undescribed(metadata: DistributedMetadata) -> Iterator[str]:
    """Names that have bytes in a file, and of which `state_dict_metadata` does not say what they are."""
    known = metadata.items.names
    return (n for n in known if n not in metadata.tensors and n not in metadata.objects)


def _lost(metadata: DistributedMetadata) -> list[str]:
    """Names that the save was planned with, and of which nothing is left: neither a description nor bytes."""
    if not metadata.planned:
        return []
    placed = set(metadata.items.names)
    return sorted(
        n for n in metadata.planned if n not in metadata.tensors and n not in metadata.objects and n not in placed
    )


def _misplaced(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[tuple[StoredItem, str]]:
    """Chunks at whose place something else lies, and what is wrong, to follow the name: by length, and of some by header."""
    if metadata.transforms or len(metadata.items) > _MOST_ITEMS:
        return
    small: dict[str, list[tuple[StoredItem, Chunk]]] = defaultdict(list)
    chunks = list(_chunks(metadata))
    by_offset = any(item.corner for item, _, _ in chunks)
    for item, chunk, dtype in chunks:
        if by_offset and chunk.sizes and not item.corner:
            yield item, "has a place without an offset, by which a load looks for it, as all others have"
        needed = prod(chunk.sizes) * DTYPE_BITS.get(dtype, 0) // 8
        if item.nbytes < needed:
            yield item, f"takes {needed:,} bytes, but its place in {item.path} has {item.nbytes:,}"
        elif item.nbytes <= _SMALL_NBYTES:
            small[item.path].append((item, chunk))
    for path, items in small.items():
        yield from _other_headers(checkpoint, path, list(islice(items, _LOOKED_AT)))


def _chunks(metadata: DistributedMetadata) -> Iterator[tuple[StoredItem, Chunk, str]]:
    """Each item that is a chunk of a tensor, with the chunk and its dtype."""
    for item in metadata.items:
        tensor = metadata.tensors.get(item.name)
        if tensor is None:
            continue
        if len(tensor.chunks) == 1 and not item.corner:  # a whole tensor is placed without an offset by some writers
            yield item, tensor.chunks[0], tensor.dtype
        elif (chunk := next((c for c in tensor.chunks if c.offsets == item.corner), None)) is not None:
            yield item, chunk, tensor.dtype


def _other_headers(
    checkpoint: Checkpoint, path: str, items: list[tuple[StoredItem, Chunk]]
) -> Iterator[tuple[StoredItem, str]]:
    try:
        parts = checkpoint.files.torch_parts(path, tuple((i.offset, i.nbytes) for i, _ in items))
    except FactUnavailable:
        return
    for (item, chunk), part in zip(items, parts, strict=True):
        value = part.value if part.readable else None
        broken = next((p for p in part.problems if p.fatal), None)
        if broken and part.container == "zip":
            yield item, f"can't be read from its place in {path} ({broken.message})"
        if isinstance(value, TensorInfo) and value.shape != chunk.sizes:
            shapes = f"a tensor of shape {list(value.shape)} is stored, not one of {list(chunk.sizes)}"
            yield item, f"has a place in {path} where {shapes}"

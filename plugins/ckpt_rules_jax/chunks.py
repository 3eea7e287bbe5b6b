"""Whether the chunks of arrays are whole, by their headers: nothing is unpacked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from ckpt_rules import Checkpoint, StoredValue, ZstdFrame, zstd_frame
from ckpt_rules_jax.stores import Store
from ckpt_rules_jax.zarr import Shards, ZarrArray

_PLACE_NBYTES, _CRC_NBYTES = 16, 4
_ABSENT = b"\xff" * _PLACE_NBYTES
_LONGEST_INDEX = 1 << 16


class Part(NamedTuple):
    """One piece of a chunk that was packed by itself: bytes of the chunk's value."""

    value: StoredValue
    array: ZarrArray
    offset: int
    nbytes: int


def chunk_faults(checkpoint: Checkpoint, store: Store, whole: set[str], most: int) -> Iterator[tuple[str, str, str]]:
    """The file, the key and what is wrong, to follow the key, of each chunk in a file of `whole`, and of those in the tree."""
    by_file: dict[str, list[tuple[StoredValue, ZarrArray]]] = defaultdict(list)
    for array, key in store.chunks():
        value = store.values.get(key)
        if value is not None and array.codec and (value.inline is not None or value.path in whole):
            by_file[value.path].append((value, array))
    left = most
    for path, chunks in by_file.items():
        parts = []
        for (value, array), index in zip(chunks, _indexes(checkpoint, path, chunks), strict=True):
            if isinstance(index, str):
                yield store.path(value.key), value.key, index
            else:
                parts += [Part(value, array, *place) for place in index]
        frames = _frames(checkpoint, path, [p for p in parts if p.array.codec == "zstd"], left)
        left -= sum(frame.blocks for frame in frames)
        found = iter(frames)
        for part in parts:
            fault = _packed(part, next(found)) if part.array.codec == "zstd" else _plain(part)
            if fault:
                yield store.path(part.value.key), part.value.key, fault


def _indexes(
    checkpoint: Checkpoint, path: str, chunks: list[tuple[StoredValue, ZarrArray]]
) -> list[list[tuple[int, int]] | str]:
    """Where the parts of each chunk lie in its value, or what is wrong with the chunk."""
    wanted = [(v, n) for v, a in chunks if a.shards and (n := _index_nbytes(a.shards)) <= min(v.nbytes, _LONGEST_INDEX)]
    spans = tuple((v.offset + v.nbytes - n, n) for v, n in wanted if v.inline is None)
    read = iter(checkpoint.files.byte_ranges(path, spans)) if spans else iter(())
    indexes = {v.key: v.inline[-n:] if v.inline is not None else next(read) for v, n in wanted}
    return [
        _places(value, array.shards, indexes.get(value.key)) if array.shards else [(0, value.nbytes)]
        for value, array in chunks
    ]


def _index_nbytes(shards: Shards) -> int:
    return _PLACE_NBYTES * shards.inner + (_CRC_NBYTES if shards.crc else 0)


def _places(value: StoredValue, shards: Shards, index: bytes | None) -> list[tuple[int, int]] | str:
    needed = _index_nbytes(shards)
    if index is None:
        return [] if needed > _LONGEST_INDEX else f"has {value.nbytes:,} bytes, fewer than the {needed:,} of its index"
    places = [index[n : n + _PLACE_NBYTES] for n in range(0, _PLACE_NBYTES * shards.inner, _PLACE_NBYTES)]
    found = [(int.from_bytes(p[:8], "little"), int.from_bytes(p[8:], "little")) for p in places if p != _ABSENT]
    beyond = next((p for p in found if sum(p) > value.nbytes - needed or not p[1]), None)
    return f"ends with an index that refers to bytes {beyond[0]:,} to {sum(beyond):,}" if beyond else found


def _frames(checkpoint: Checkpoint, path: str, parts: list[Part], most: int) -> tuple[ZstdFrame, ...]:
    if not path:
        return tuple(zstd_frame((p.value.inline or b"")[p.offset : p.offset + p.nbytes]) for p in parts)
    return checkpoint.files.zstd_frames(path, tuple((p.value.offset + p.offset, p.nbytes) for p in parts), most)


def _packed(part: Part, frame: ZstdFrame) -> str | None:
    if frame.fault:
        return frame.fault
    if frame.content is not None and part.array.nbytes not in (None, frame.content):
        return f"unpacks into {frame.content:,} bytes, but a chunk takes {part.array.nbytes:,}"
    if frame.end is not None and frame.end != part.nbytes:
        return f"has {part.nbytes:,} bytes, but its zstd frame takes {frame.end:,}"
    return None


def _plain(part: Part) -> str | None:
    if part.array.nbytes in (None, part.nbytes):
        return None
    return f"has {part.nbytes:,} bytes, but a chunk takes {part.array.nbytes:,}"

"""Whether the chunks of a tensor fill it, each element once."""

from __future__ import annotations

from collections import defaultdict
from math import prod

from ckpt_rules import Chunk, StoredTensor

_ROOM = 2**16

# A place in each dimension that was looked at, the sides of a box in those that were not; and how often the box is there.
_Boxes = dict[tuple[tuple[int, ...], tuple[tuple[int, int], ...]], int]


def fault_in(tensor: StoredTensor) -> str | None:
    """What is wrong with the chunks of a tensor, to follow its name and shape."""
    shape, chunks = tensor.shape, tensor.chunks
    if odd := next((c for c in chunks if len(c.offsets) != len(c.sizes)), None):
        return f"has a chunk of {len(odd.sizes):,} dimensions that begins at {list(odd.offsets)}"
    if tensor.is_whole:
        return None
    if any(not _within(chunk, shape) for chunk in chunks):
        return "has a chunk that extends past it"
    volume = sum(prod(chunk.sizes) for chunk in chunks)
    if volume != prod(shape):
        return f"has {prod(shape):,} elements, but its chunks hold {volume:,}"
    if volume and not _each_once(shape, [chunk for chunk in chunks if prod(chunk.sizes)]):
        return "has chunks that overlap, which leaves a hole elsewhere"
    return None


def _within(chunk: Chunk, shape: tuple[int, ...]) -> bool:
    if not len(chunk.offsets) == len(chunk.sizes) == len(shape):
        return False
    return all(o + s <= n for o, s, n in zip(chunk.offsets, chunk.sizes, shape, strict=True))


def _each_once(shape: tuple[int, ...], chunks: list[Chunk]) -> bool:
    """Whether chunks that lie within a tensor cover it; never denied of what takes too many boxes to tell."""
    cut = [d for d, n in enumerate(shape) if any(chunk.sizes[d] != n for chunk in chunks)]
    if len(cut) < 2:
        return _in_a_row(sorted((chunk.offsets[d], chunk.sizes[d]) for chunk in chunks for d in cut))
    boxes: _Boxes = defaultdict(int)
    for chunk in chunks:
        boxes[(), tuple((chunk.offsets[d], chunk.offsets[d] + chunk.sizes[d]) for d in cut)] += 1
    boxes[(), tuple((0, shape[d]) for d in cut)] -= 1
    for _ in cut:
        boxes = _differences(boxes)
        if len(boxes) > _ROOM + 8 * len(chunks):
            return True
    return not boxes


def _in_a_row(pieces: list[tuple[int, int]]) -> bool:
    """Whether sorted pieces, whose lengths add up, follow one another."""
    at = 0
    for offset, size in pieces:
        if offset != at:
            return False
        at += size
    return True


def _differences(boxes: _Boxes) -> _Boxes:
    """How the sum of some boxes changes along the next dimension: what begins at a place, less what ends there.

    Taken along every dimension, nothing is left of the chunks less the whole tensor exactly where each element is in one
    chunk. Walls between chunks of one size cancel out on the way.
    """
    found: _Boxes = defaultdict(int)
    for (places, ((begin, end), *others)), count in boxes.items():
        sides = tuple(others)
        found[(*places, begin), sides] += count
        found[(*places, end), sides] -= count
    return {box: count for box, count in found.items() if count}

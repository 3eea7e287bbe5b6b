"""Two blocks of elements against each other: the map reads pieces of both side by side, the reduce adds up what differs.

Bytes are compared before values are: of tensors that are the same nothing else is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np

from ckpt_rules.deep.kernels import INTEGER_DTYPES, itemsize, numbers
from ckpt_rules.deep.pieces import PIECE_NBYTES
from ckpt_rules.deep.scan import CHUNK_NBYTES, read_chunk
from ckpt_rules.deep.workers import Tell, spread
from ckpt_rules.facts.values import Block
from ckpt_rules.storage import LocalSource, Source, Storage, reason

if TYPE_CHECKING:
    from ckpt_rules.reading import Reading

Storages: TypeAlias = tuple[Storage, Storage]
K = TypeVar("K")

RAW = "uint8"
"""Dtype of blocks that are bytes and no numbers."""


class Pair(NamedTuple):
    """The same elements, as many and in the same order, in each of two checkpoints.

    exact: whether it is enough to know that something differs
    """

    one: Block
    other: Block
    exact: bool = False

    @property
    def numel(self) -> int:
        """Elements of each."""
        return self.one.nbytes // _size(self.one)

    @property
    def same_dtype(self) -> bool:
        """Whether the same bytes are the same values."""
        return (self.one.dtype, self.one.big_endian) == (self.other.dtype, self.other.big_endian)


class Part(NamedTuple):
    """Elements `start` to `stop` of a pair; `summed` where sums are wanted though all bytes may be the same."""

    pair: Pair
    start: int
    stop: int
    summed: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes to read in both."""
        return (self.stop - self.start) * (_size(self.one) + _size(self.other))

    @property
    def one(self) -> Block:
        """The first side."""
        return self.pair.one

    @property
    def other(self) -> Block:
        """The second side."""
        return self.pair.other


class Differences(NamedTuple):
    """What differs between values. A complex number counts as two.

    differing:  how many values differ; two that are both not a number do not
    odd:        at how many places one of the two is not finite: they are in none of the sums below
    largest:    the largest absolute difference
    squares:    the sum of the squares of the first side, of the second, and of their differences
    product:    the sum of the products of both sides
    summed:     whether there are sums: there are none where all bytes are the same
    fault:      why they could not be read to the end, or None
    """

    differing: int = 0
    odd: int = 0
    largest: float = 0.0
    squares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    product: float = 0.0
    summed: bool = False
    fault: str | None = None

    def __add__(self, more: object) -> Differences:
        if not isinstance(more, Differences):
            return NotImplemented
        one, other, both = (a + b for a, b in zip(self.squares, more.squares, strict=True))
        return Differences(
            self.differing + more.differing,
            self.odd + more.odd,
            max(self.largest, more.largest),
            (one, other, both),
            self.product + more.product,
            self.summed or more.summed,
            self.fault or more.fault,
        )


def differences(storages: Storages, pairs: Mapping[K, tuple[Pair, ...]], reading: Reading) -> dict[K, Differences]:
    """What differs between the two sides of each; those of one key are added up.

    Parts that turn out to be the same are read again for their sums only where others of the same key differ.
    """
    found: dict[Pair, dict[Part, Differences]] = {pair: {} for own in pairs.values() for pair in own}

    def read(parts: Iterable[Part]) -> None:
        parts = list(parts)
        nbytes = sum(part.nbytes for part in parts)
        for part, result in spread(partial(compare, storages), parts, nbytes, reading):
            found[part.pair][part._replace(summed=False)] = result

    read(part for pair in found for part in _parts(pair))
    read(_unsummed([found[pair] for pair in own] for own in pairs.values()))
    return {key: _total(result for pair in own for result in found[pair].values()) for key, own in pairs.items()}


def _unsummed(groups: Iterable[list[dict[Part, Differences]]]) -> Iterable[Part]:
    """Parts without sums in a group of which others have some."""
    return dict.fromkeys(
        part._replace(summed=True)
        for group in groups
        if any(result.summed for results in group for result in results.values())
        for results in group
        for part, result in results.items()
        if not result.summed and not result.fault and not part.pair.exact
    )


def _total(results: Iterable[Differences]) -> Differences:
    total = Differences()
    for result in results:
        total += result
    return total


def _parts(pair: Pair) -> Iterator[Part]:
    step = max(1, PIECE_NBYTES // (_size(pair.one) + _size(pair.other)))
    for start in range(0, pair.numel, step):
        yield Part(pair, start, min(start + step, pair.numel))


def compare(storages: Storages, part: Part, tell: Tell | None = None, *, forget: bool = False) -> Differences:
    """Read one part in both checkpoints."""
    try:
        with storages[0].open(part.one.path) as one, storages[1].open(part.other.path) as other:
            found = _compare(one, other, part, tell)
            if forget:
                _forget(one, part.one, part)
                _forget(other, part.other, part)
            return found
    except OSError as error:
        return Differences(fault=reason(error))


def _compare(one: Source, other: Source, part: Part, tell: Tell | None) -> Differences:
    found = Differences()
    for first, second in _chunks(one, other, part, tell):
        if first is None or second is None:
            return found._replace(fault="it is shorter than when it was listed")
        same = part.pair.same_dtype and _same_bytes(first, second)
        if same and not part.summed:
            continue
        if part.pair.exact:
            return Differences(differing=1)
        if not part.summed:  # what came before was the same, and its sums are wanted after all
            return _compare(one, other, part._replace(summed=True), None)
        found += _differences(first, second, part.pair)
    return found


def _chunks(
    one: Source, other: Source, part: Part, tell: Tell | None
) -> Iterator[tuple[memoryview | None, memoryview | None]]:
    """The same elements of both sides, chunk by chunk; None where a file has ended before."""
    sizes = _size(part.one), _size(part.other)
    step = max(1, CHUNK_NBYTES // max(sizes))
    buffers = tuple(memoryview(bytearray(min(step, part.stop - part.start) * size)) for size in sizes)
    for start in range(part.start, part.stop, step):
        count = min(step, part.stop - start)
        read = []
        for source, block, buffer, size in zip((one, other), part.pair[:2], buffers, sizes, strict=True):
            chunk = read_chunk(source, block.offset + start * size, buffer[: count * size])
            read.append(chunk if len(chunk) == count * size else None)
        if tell is not None:
            tell(count * sum(sizes))
        yield read[0], read[1]


def _same_bytes(first: memoryview, second: memoryview) -> bool:
    words = len(first) // 8 * 8
    return np.array_equal(np.frombuffer(first[:words], "u8"), np.frombuffer(second[:words], "u8")) and bytes(
        first[words:]
    ) == bytes(second[words:])


def _differences(first: memoryview, second: memoryview, pair: Pair) -> Differences:
    one = numbers(first, pair.one.dtype, big_endian=pair.one.big_endian)
    other = numbers(second, pair.other.dtype, big_endian=pair.other.big_endian)
    # Whole numbers are counted as such: as floating-point ones, large neighbours are equal.
    whole = pair.one.dtype == pair.other.dtype and pair.one.dtype in INTEGER_DTYPES
    unequal = int(np.count_nonzero(one != other)) if whole else None
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = one.astype("f8", copy=False), other.astype("f8", copy=False)
        apart = a - b
        odd = 0
        if not math.isfinite(float(apart @ apart)):
            if unequal is None:
                unequal = int(np.count_nonzero((a != b) & ~(np.isnan(a) & np.isnan(b))))
            finite = np.isfinite(a) & np.isfinite(b)
            odd = a.size - int(np.count_nonzero(finite))
            a, b, apart = a[finite], b[finite], apart[finite]
        return Differences(
            int(np.count_nonzero(apart)) if unequal is None else unequal,
            odd,
            float(np.abs(apart).max(initial=0.0)),
            (float(a @ a), float(b @ b), float(apart @ apart)),
            float(a @ b),
            summed=True,
        )


def _size(block: Block) -> int:
    return itemsize(block.dtype) or 1


def _forget(source: Source, block: Block, part: Part) -> None:
    if isinstance(source, LocalSource):
        size = _size(block)
        source.forget(block.offset + part.start * size, (part.stop - part.start) * size)

"""What the bytes of a checkpoint say: the values of its tensors, the checksums of its archives, the digests of its files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import NamedTuple, TypeVar

from ckpt_rules.facts.tensors import FLOAT_DTYPES

N = TypeVar("N", int, float)


class Measure(Flag):
    """What is computed of each tensor's values.

    RANGE:       how many are not finite and which is the first; the smallest and the largest finite one
    MOMENTS:     the sum of the finite ones, and that of their squares
    ZEROS:       how many are zero
    FINGERPRINT: the CRC-32 of their bytes, to tell whether two tensors are the same
    """

    NONE = 0
    RANGE = auto()
    MOMENTS = auto()
    ZEROS = auto()
    FINGERPRINT = auto()
    ALL = RANGE | MOMENTS | ZEROS


class Digest(NamedTuple):
    """A digest of a whole file.

    algorithm: `blake3`, `sha256`, `sha1`, or `git-sha1`, by which git names a file
    """

    path: str
    algorithm: str


class Block(NamedTuple):
    """Elements that lie one after the other in a file, in `nbytes` bytes from byte `offset` on.

    dtype: torch's name, `float32`
    """

    path: str
    offset: int
    nbytes: int
    dtype: str
    big_endian: bool = False


class Cast(NamedTuple):
    """Elements that are compared as another dtype: float32 blocks, one behind the other, rounded to `dtype` as torch does.

    dtype: `float32`, `bfloat16` or `float16`; that of the blocks themselves where they are taken as they are
    """

    blocks: tuple[Block, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the one pass over all bytes shall compute; the wishes of several rules are joined with `|`.

    measures:  of the values of every tensor
    checksums: whether the CRC-32 of every entry of zip archives is computed
    digests:   of whole files
    casts:     whose CRC-32 is computed, to tell whether they are the same
    """

    measures: Measure = Measure.NONE
    checksums: bool = False
    digests: frozenset[Digest] = frozenset()
    casts: frozenset[Cast] = frozenset()

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            self.measures | other.measures,
            self.checksums or other.checksums,
            self.digests | other.digests,
            self.casts | other.casts,
        )

    def __bool__(self) -> bool:
        return self != Wanted()

    def includes(self, other: Wanted) -> bool:
        """Whether this asks for all that the other asks for."""
        return self | other == self


class ZipMember(NamedTuple):
    """An entry of a zip archive: where its content lies, and the CRC-32 that the archive's directory gives for it."""

    path: str
    name: str
    offset: int
    nbytes: int
    crc: int


class Master(NamedTuple):
    """The float32 master copy that an optimizer keeps of a weight.

    name:   of the weight
    weight: where the saved weight lies
    parts:  where the master lies, in pieces one behind the other
    """

    name: str
    weight: Block
    parts: tuple[Block, ...]


class Values(NamedTuple):
    """The values of some elements. A complex number counts as two values, its real and its imaginary part.

    numel:             values in all
    nan, above, below: how many are not a number, positive infinite, negative infinite
    first:             number of the first that is not finite, in the order of the file, from 0; None where all are
    smallest, largest: of the finite values; None where there are none, or where `RANGE` was not asked for
    total, squares:    sum of the finite values, and of their squares; None where `MOMENTS` was not asked for
    zeros:             how many are zero; None where `ZEROS` was not asked for
    fingerprint:       CRC-32 of the bytes; None where it was not asked for, or where they lie in several places
    """

    numel: int
    nan: int = 0
    above: int = 0
    below: int = 0
    first: int | None = None
    smallest: float | None = None
    largest: float | None = None
    total: float | None = None
    squares: float | None = None
    zeros: int | None = None
    fingerprint: int | None = None

    @property
    def non_finite(self) -> int:
        """How many values are infinite or not a number."""
        return self.nan + self.above + self.below

    @property
    def peak(self) -> float | None:
        """The largest absolute value among the finite ones."""
        if self.smallest is None or self.largest is None:
            return None
        return max(abs(self.smallest), abs(self.largest))

    @property
    def mean(self) -> float | None:
        """The mean of the finite values."""
        finite = self.numel - self.non_finite
        return None if self.total is None or not finite else self.total / finite

    @property
    def norm(self) -> float | None:
        """The Euclidean (L2) norm of the finite values."""
        return None if self.squares is None else math.sqrt(self.squares)

    @property
    def zero_share(self) -> float | None:
        """The share of zeros, from 0 to 1."""
        return None if self.zeros is None or not self.numel else self.zeros / self.numel

    @property
    def constant(self) -> bool:
        """Whether all values are the same finite number."""
        return self.smallest is not None and self.smallest == self.largest and not self.non_finite


def joined(parts: Iterable[Values]) -> Values:
    """The values of a whole from those of its parts, in their order; without a fingerprint."""
    whole = Values(0)
    for part in parts:
        first = whole.first
        if first is None and part.first is not None:
            first = whole.numel + part.first
        whole = Values(
            whole.numel + part.numel,
            whole.nan + part.nan,
            whole.above + part.above,
            whole.below + part.below,
            first,
            _either(min, whole.smallest, part.smallest),
            _either(max, whole.largest, part.largest),
            _either(_sum, whole.total, part.total),
            _either(_sum, whole.squares, part.squares),
            _either(_sum, whole.zeros, part.zeros),
        )
    return whole


def _sum(one: N, other: N) -> N:
    return one + other


def _either(choose: Callable[[N, N], N], one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


class Located(NamedTuple):
    """A tensor, and where its elements lie.

    path:    the file that names it, relative to the checkpoint
    name:    in that file: `model.embed.weight`, `optimizer.state.0.exp_avg`
    blocks:  the chunks that it was saved in, nearly always one; none where its elements can't be found
    corners: of several blocks: where each begins in the tensor, in elements per dimension
    sizes:   of several blocks: elements per dimension of each
    strides: of elements that lie in another order than row by row: the distance between neighbours, in elements
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    corners: tuple[tuple[int, ...], ...] = ()
    sizes: tuple[tuple[int, ...], ...] = ()
    strides: tuple[int, ...] | None = None

    @property
    def is_float(self) -> bool:
        """Whether its values can be infinite or not a number."""
        return self.dtype in FLOAT_DTYPES or self.dtype.startswith("complex")

    def index_of(self, block: int, number: int) -> tuple[int, ...]:
        """The index, one number per dimension, of an element by its number in one of the blocks."""
        sizes = self.sizes[block] if self.sizes else self.shape
        corner = self.corners[block] if self.corners else (0,) * len(sizes)
        inside = _unravelled(number, sizes, self.strides or _row_major(sizes))
        return tuple(start + step for start, step in zip(corner, inside, strict=True))


def _row_major(sizes: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _unravelled(number: int, sizes: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    index = [0] * len(sizes)
    for dimension in sorted(range(len(sizes)), key=lambda d: (-strides[d], sizes[d] == 1)):
        if sizes[dimension] > 1:
            index[dimension], number = divmod(number, strides[dimension])
    return tuple(index)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one element lies.

    index:  in the tensor, one number per dimension
    path:   its file
    offset: byte in that file
    """

    index: tuple[int, ...]
    path: str
    offset: int


class Measured(NamedTuple):
    """A tensor with its values; `first` is where the first that is not finite lies, None where all are."""

    tensor: Located
    values: Values
    first: Spot | None


@dataclass(frozen=True, slots=True)
class BytesRead:
    """What one pass over the bytes of a checkpoint found. What could not be read to its end is absent.

    wanted:    what was asked for
    values:    of each block
    checksums: the CRC-32 of each zip entry's content
    digests:   in hexadecimal
    casts:     the CRC-32 of each
    unread:    the files that could not be read to their end, and why
    nbytes:    how many bytes were read
    """

    wanted: Wanted
    values: Mapping[Block, Values] = field(default_factory=dict)
    checksums: Mapping[ZipMember, int] = field(default_factory=dict)
    digests: Mapping[Digest, str] = field(default_factory=dict)
    casts: Mapping[Cast, int] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    nbytes: int = 0

    def measured(self, tensors: Iterable[Located]) -> Iterator[Measured]:
        """The values of each tensor all of whose blocks were read."""
        for tensor in tensors:
            parts = [self.values.get(block) for block in tensor.blocks]
            known = [part for part in parts if part is not None]
            if known and len(known) == len(parts):
                yield Measured(tensor, known[0] if len(known) == 1 else joined(known), _first(tensor, known))


def _first(tensor: Located, parts: list[Values]) -> Spot | None:
    for number, (block, part) in enumerate(zip(tensor.blocks, parts, strict=True)):
        if part.first is not None:
            element = part.first // 2 if tensor.dtype.startswith("complex") else part.first
            offset = block.offset + part.first * (block.nbytes // part.numel)
            return Spot(tensor.index_of(number, element), block.path, offset)
    return None

"""The metadata of a distributed checkpoint: which tensors and objects there are, and where their bytes lie."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, overload

from ckpt_rules.facts.tensors import ReadProblem


class Chunk(NamedTuple):
    """A box of a tensor, in elements: where it starts, and how far it reaches in each dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


class StoredTensor(NamedTuple):
    """A whole tensor by its chunks; `dtype` is torch's name, `float32`."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def is_whole(self) -> bool:
        """Whether one chunk holds all of it."""
        return len(self.chunks) == 1 and self.chunks[0].sizes == self.shape and not any(self.chunks[0].offsets)


class StoredItem(NamedTuple):
    """One chunk or object: bytes `offset` to `offset + nbytes` of the file at `path`, relative to the checkpoint.

    corner: where the chunk begins in its tensor, in elements per dimension; () where that is not said
    """

    name: str
    path: str
    offset: int
    nbytes: int
    corner: tuple[int, ...] = ()


class StoredFile(NamedTuple):
    """A file by the items that it holds.

    first:  the one that begins first
    held:   how many there are
    length: the byte behind the last, where they follow one another from byte 0 without a gap; None where they do not
    """

    path: str
    first: StoredItem
    held: int
    length: int | None


@dataclass(slots=True, eq=False)
class StoredItems(Sequence[StoredItem]):
    """Items in little memory, however many: a column for each field, and an item made where it is asked for.

    names, paths, corners: each different one once; names of tensors that have no item may be among them
    """

    names: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    corners: list[tuple[int, ...]] = field(default_factory=list)
    name_numbers: array[int] = field(default_factory=lambda: array("I"))
    path_numbers: array[int] = field(default_factory=lambda: array("I"))
    corner_numbers: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> StoredItem: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[StoredItem, ...]: ...

    def __getitem__(self, index: int | slice) -> StoredItem | tuple[StoredItem, ...]:
        """One item, or some."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        return StoredItem(
            self.names[self.name_numbers[index]],
            self.paths[self.path_numbers[index]],
            self.offsets[index],
            self.lengths[index],
            self.corners[self.corner_numbers[index]],
        )

    def __iter__(self) -> Iterator[StoredItem]:
        """The items in order."""
        names = map(self.names.__getitem__, self.name_numbers)
        paths = map(self.paths.__getitem__, self.path_numbers)
        corners = map(self.corners.__getitem__, self.corner_numbers)
        return map(StoredItem._make, zip(names, paths, self.offsets, self.lengths, corners, strict=True))

    def counts(self) -> Counter[str]:
        """How many items each name has."""
        return Counter({self.names[number]: count for number, count in Counter(self.name_numbers).items()})

    def of(self, names: Container[str]) -> Iterator[StoredItem]:
        """The items of some names, in order."""
        wanted = [name in names for name in self.names]
        return (self[i] for i, number in enumerate(self.name_numbers) if wanted[number])

    def inside(self, paths: Container[str]) -> Iterator[StoredItem]:
        """The items of some files, in order."""
        wanted = [path in paths for path in self.paths]
        return (self[i] for i, number in enumerate(self.path_numbers) if wanted[number])

    def files(self) -> Iterator[StoredFile]:
        """Each file that holds items, in the order of the first of its paths."""
        import numpy as np

        paths, offsets = np.asarray(self.path_numbers), np.asarray(self.offsets)
        order = np.lexsort((offsets, paths))
        paths, offsets = paths[order], offsets[order]
        ends = offsets + np.asarray(self.lengths)[order]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = paths[1:] != paths[:-1]
        follows = is_first.copy()
        follows[1:] |= offsets[1:] == ends[:-1]
        follows &= ~is_first | (offsets == 0)
        for start, stop in pairwise([*np.flatnonzero(is_first).tolist(), len(order)]):
            length = int(ends[stop - 1]) if follows[start:stop].all() else None
            yield StoredFile(self.paths[paths[start]], self[int(order[start])], stop - start, length)


@dataclass(frozen=True, slots=True)
class DistributedMetadata:
    """What a `.metadata` of torch.distributed.checkpoint says.

    tensors: by full name
    objects: names of everything else, each pickled by itself
    items:   in the order of the file
    transforms: stream extensions through which any item was written, as `stream.zstd`: its bytes are then not torch.save's
    problem: why it can't be interpreted, or None
    planned: names that the save was planned with, as its planner noted them; none where it did not, or of very many
    """

    path: str
    tensors: Mapping[str, StoredTensor]
    objects: frozenset[str]
    items: StoredItems
    transforms: frozenset[str] = frozenset()
    problem: ReadProblem | None = None
    planned: frozenset[str] = frozenset()

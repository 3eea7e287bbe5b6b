"""The metadata of a distributed checkpoint: which tensors and objects there are, and where their bytes lie."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


class StoredItem(NamedTuple):
    """One chunk or object: bytes `offset` to `offset + nbytes` of the file at `path`, relative to the checkpoint.

    corner: where the chunk begins in its tensor, in elements per dimension; () where that is not said
    """

    name: str
    path: str
    offset: int
    nbytes: int
    corner: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class StoredItems(Sequence[StoredItem]):
    """Very many items in little memory: a column for each field, and an item made where it is asked for.

    names, paths, corners: each different one once
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


@dataclass(frozen=True, slots=True)
class DistributedMetadata:
    """What a `.metadata` of torch.distributed.checkpoint says.

    tensors: by full name
    objects: names of everything else, each pickled by itself
    items:   in the order of the file
    problem: why it can't be made sense of, or None
    """

    path: str
    tensors: Mapping[str, StoredTensor]
    objects: frozenset[str]
    items: Sequence[StoredItem]
    problem: ReadProblem | None = None

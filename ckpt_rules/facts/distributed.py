"""The metadata of a distributed checkpoint: which tensors and objects there are, and where their bytes lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
    items: tuple[StoredItem, ...]
    problem: ReadProblem | None = None

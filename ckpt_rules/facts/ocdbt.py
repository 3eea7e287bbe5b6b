"""What an OCDBT database holds, as tensorstore writes it for Orbax: keys, and where the bytes of their values lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ckpt_rules.facts.tensors import ReadProblem


class StoredValue(NamedTuple):
    """One value: bytes `offset` to `offset + nbytes` of the file at `path`, or `inline`, where the tree itself holds it."""

    key: str
    nbytes: int
    path: str = ""
    offset: int = 0
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class OcdbtDatabase:
    """The newest version in a manifest, by its tree.

    path:     the manifest
    values:   in the order of the tree
    reach:    each file that the tree refers to, and the byte behind the furthest that it refers to
    complete: whether the whole tree was read; where it was not, keys may be missing from `values`
    problems: by the file that they are in; files that are missing or end too early are none, for `reach` tells them
    """

    path: str
    values: tuple[StoredValue, ...] = ()
    reach: Mapping[str, int] | None = None
    complete: bool = True
    problems: tuple[tuple[str, ReadProblem], ...] = ()


@dataclass(frozen=True, slots=True)
class ZstdFrame:
    """A frame of zstd by its headers; its data are not unpacked.

    content: bytes that it unpacks into, as its header says; None where it does not
    end:     bytes that it takes; None where its blocks were not walked to the end
    fault:   what is wrong, to follow the name of what holds it; None where nothing is
    blocks:  how many of its blocks were walked
    """

    content: int | None = None
    end: int | None = None
    fault: str | None = None
    blocks: int = 0

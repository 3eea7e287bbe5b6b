"""Pickles and archives inside of others: bytes that a loader, or a call in the outer pickle, could be pointed at."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple, Self

from ckpt_rules.storage import Source

_LOADABLE = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04|\x93NUMPY|\x1f\x8b|\xfd7zXZ\x00|BZh[1-9]1AY&SY|\x5d\x00\x00|x[\x01\x5e\x9c\xda]",
    re.DOTALL,
)
_ZLIB_NBYTES = 64


class Enclosed(NamedTuple):
    """Bytes that look loadable.

    where: the stream or the entry that holds them
    at:    their byte in it, or that of the opcode that makes them
    raw:   they themselves, or the part of the file where they lie
    usual: whether archives of this kind hold such a thing by design
    """

    where: str
    at: int
    raw: bytes | Source
    usual: bool = False


class Memory:
    """A file that exists in memory only."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.size = len(raw)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, at most `length`."""
        return self._raw[offset : offset + length]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""


class Window:
    """A part of a file as a file."""

    def __init__(self, source: Source, start: int, nbytes: int) -> None:
        self._source, self._start = source, start
        self.size = max(0, min(nbytes, source.size - start))

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, at most `length`."""
        return self._source.read(self._start + offset, max(0, min(length, self.size - offset)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The file is closed by whoever opened it."""


def is_loadable(head: bytes) -> bool:
    """Whether bytes start as a pickle, a zip archive, a NumPy array or something compressed does."""
    if _LOADABLE.match(head) is None:
        return False
    if not head.startswith(b"x"):
        return True
    try:
        zlib.decompressobj().decompress(head[:_ZLIB_NBYTES])
    except zlib.error:
        return False
    return True

"""Pickles and archives inside of others: bytes that a loader, or a call in the outer pickle, could be pointed at."""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple, Self

from ckpt_rules.storage import Source

_LOADABLE = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04|\x93NUMPY|\x1f\x8b|\xfd7zXZ\x00|BZh[1-9]1AY&SY",
    re.DOTALL,
)
_ZLIB_HEAD, _ZLIB_NBYTES = 2, 64
_LZMA = struct.Struct("<BLQB")
_MOST_LZMA_PROPERTIES, _MOST_LZMA_NBYTES, _UNKNOWN_SIZE = 225, 1 << 38, (1 << 64) - 1


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
    return _LOADABLE.match(head) is not None or is_zlib(head) or is_lzma(head)


def is_zlib(head: bytes) -> bool:
    """Whether bytes start as zlib does, of any window and level (RFC 1950), and can be decompressed."""
    # The method, a window of at most 32 KiB, and a checksum over both; none of the dictionaries that zlib can be given.
    if len(head) < _ZLIB_HEAD or head[0] & 0x8F != zlib.DEFLATED or head[1] & 0x20 or int.from_bytes(head[:2]) % 31:
        return False
    try:
        zlib.decompressobj().decompress(head[:_ZLIB_NBYTES])
    except zlib.error:
        return False
    return True


def is_lzma(head: bytes) -> bool:
    """Whether bytes start as the older format of xz does: a byte of properties, the sizes of the dictionary and of the content."""
    if len(head) < _LZMA.size or head[0] >= _MOST_LZMA_PROPERTIES:
        return False
    _, dictionary, nbytes, first = _LZMA.unpack_from(head)
    # What `file` and xz itself go by: a power of two, or the sum of two that follow each other; and the first byte is 0.
    usual = dictionary >= 1 << 12 and dictionary & (dictionary - 1) in (0, dictionary // 3 * 2)
    return bool(first == 0 and usual and (nbytes == _UNKNOWN_SIZE or nbytes < _MOST_LZMA_NBYTES))

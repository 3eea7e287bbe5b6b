"""Pickles and archives inside of others: bytes that a loader, or a call in the outer pickle, could be pointed at."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_LOADABLE = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04|\x93NUMPY|\x1f\x8b")


class Enclosed(NamedTuple):
    """Bytes that look loadable.

    where: the stream or the entry that holds them
    at:    their byte in it, or that of the opcode that makes them
    """

    where: str
    at: int
    raw: bytes


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


def is_loadable(head: bytes) -> bool:
    """Whether bytes start as a pickle, a zip archive, a NumPy array or a gzip file does."""
    return _LOADABLE.match(head) is not None

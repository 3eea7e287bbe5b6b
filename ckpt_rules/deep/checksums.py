"""CRC-32 and digests, by libraries that are several times faster than the standard one where there are such."""

from __future__ import annotations

import hashlib
from typing import Protocol

from zlib_ng import zlib_ng

ALGORITHMS = ("blake3", "sha256", "sha1", "git-sha1")


class Hash(Protocol):
    """A digest under way."""

    def update(self, data: memoryview, /) -> object:
        """Take in further bytes."""
        ...

    def hexdigest(self) -> str:
        """The digest of all bytes so far, in hexadecimal."""
        ...


def crc32(data: memoryview, start: int = 0) -> int:
    """The CRC-32 of bytes that follow others, whose CRC-32 is `start`."""
    return int(zlib_ng.crc32(data, start))


def crc32_joined(first: int, second: int, nbytes: int) -> int:
    """The CRC-32 of two parts together, from that of each and the length of the second."""
    return int(zlib_ng.crc32_combine(first, second, nbytes))


def new_digest(algorithm: str, nbytes: int) -> Hash:
    """A digest of a file of so many bytes; ValueError for an algorithm that is not in `ALGORITHMS`."""
    if algorithm == "blake3":
        from blake3 import blake3

        return blake3()
    if algorithm == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % nbytes, usedforsecurity=False)
    if algorithm == "sha1":
        return hashlib.sha1(usedforsecurity=False)
    if algorithm == "sha256":
        return hashlib.sha256()
    raise ValueError(f"there is no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")

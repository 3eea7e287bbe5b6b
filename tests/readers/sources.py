"""Files for the readers' tests: from bytes, from disk, and ones that shrink while they are read."""

from __future__ import annotations


class Bytes:
    """A file that exists as bytes only; `size` may promise more than there is."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self.data = data
        self.size = len(data) if size is None else size
        self.furthest = 0

    def read(self, offset: int, length: int) -> bytes:
        self.furthest = max(self.furthest, min(offset + length, len(self.data)))
        return self.data[offset : offset + length]


def codes(file) -> list[str]:
    return [p.code for p in file.problems]


def fatal(file) -> bool:
    return any(p.fatal for p in file.problems)

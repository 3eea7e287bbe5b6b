"""Files for the readers' tests: from bytes, from disk, and ones that shrink while they are read."""

from __future__ import annotations

import io
import zipfile


class Bytes:
    """A file that exists as bytes only; `size` may promise more than there is."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self.data = data
        self.size = len(data) if size is None else size
        self.furthest = 0
        self.nbytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        self.furthest = max(self.furthest, min(offset + length, len(self.data)))
        found = self.data[offset : offset + length]
        self.nbytes_read += len(found)
        return found


def codes(file) -> list[str]:
    return [p.code for p in file.problems]


def fatal(file) -> bool:
    return any(p.fatal for p in file.problems)


def saved(value, *, legacy: bool = False) -> bytes:
    """What torch.save writes, in the format of today or in the one before torch 1.6."""
    import torch

    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def rewrite(data: bytes, change) -> bytes:
    """The same archive with `change(name, content)` for each entry; None drops it."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                archive.writestr(name, content)
    return target.getvalue()

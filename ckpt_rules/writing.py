"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable


def replace_file(path: str, data: bytes | Iterable[bytes]) -> None:
    """Write a new file beside `path` and put it in its place; on any error `path` is left as it was. OSError where that fails."""
    folder, name = os.path.split(path)
    # Not the process id: in a container it is the same each time, and what a killed run left would be in the way.
    fresh = os.path.join(folder, f".{name[:200]}.{os.urandom(4).hex()}.tmp")
    mode = stat.S_IMODE(os.stat(path).st_mode) if os.path.exists(path) else None
    # 0o666 less the umask is what any other program would give a new file.
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if mode is not None:
            os.chmod(handle, mode)
        write_all(handle, data)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        raise


def write_all(handle: int, data: bytes | Iterable[bytes]) -> None:
    """Write to an open file and close it; a regular one is then on the disk."""
    with os.fdopen(handle, "wb") as file:
        file.writelines((data,) if isinstance(data, bytes) else data)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())


def sync_directory(path: str) -> None:
    """See to it that the names in a directory are on the disk, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

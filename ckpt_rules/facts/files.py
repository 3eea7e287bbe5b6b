"""What a directory listing and the first bytes of a file tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase


class EntryKind(StrEnum):
    """What a name in a directory stands for, links followed."""

    FILE = "file"
    DIRECTORY = "directory"
    BROKEN_LINK = "broken link"
    LINK_LOOP = "link loop"
    FIFO = "FIFO"
    SOCKET = "socket"
    DEVICE = "device"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name below the checkpoint directory.

    path:     relative to the checkpoint, forward slashes; bytes that are no UTF-8 are kept as surrogate escapes
    size:     bytes of the file, links followed; 0 for anything else
    mtime_ns: last modification, nanoseconds since the epoch
    link:     where a symbolic link points, as written in it
    error:    the operating system's words where the entry can't be examined (no permission, I/O error)
    """

    path: str
    kind: EntryKind
    size: int = 0
    mtime_ns: int = 0
    link: str | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> str:
        """The directory part of the path, '' at the top."""
        return self.path.rpartition("/")[0]

    @property
    def suffix(self) -> str:
        """The last suffix with its dot, lower case, or ''."""
        stem, dot, end = self.name.rpartition(".")
        return f".{end.lower()}" if dot and stem else ""


class RootKind(StrEnum):
    """What the path that the user named turned out to be."""

    DIRECTORY = "directory"
    FILE = "file"
    MISSING = "missing"
    OTHER = "other"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Root:
    """The path that was asked for.

    candidates: paths nearby that may have been meant: siblings with a like name, checkpoints inside it
    error:      the operating system's words where it can't be listed
    link:       where the path is a link that leads nowhere: what it points to, as written in it
    """

    path: str
    kind: RootKind
    candidates: tuple[str, ...] = ()
    error: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Every entry below the checkpoint, sorted by path, and the names that lie beside it.

    siblings:  names (not paths) in the parent directory, the checkpoint's own left out
    truncated: why the listing is not whole (too many entries, too deep), or None
    """

    entries: tuple[Entry, ...]
    siblings: tuple[str, ...] = ()
    truncated: str | None = None
    _by_path: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_path", {e.path: e for e in self.entries})

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, path: str) -> Entry | None:
        """The entry at a path, or None."""
        return self._by_path.get(path)

    def has_file(self, path: str) -> bool:
        """Whether a regular file (links followed) lies at a path."""
        entry = self._by_path.get(path)
        return entry is not None and entry.kind is EntryKind.FILE

    def files(self, pattern: str = "*", *, top_only: bool = False) -> list[Entry]:
        """Regular files whose name (not path) matches a glob; `top_only` leaves sub-directories out."""
        return [
            e
            for e in self.entries
            if e.kind is EntryKind.FILE and not (top_only and "/" in e.path) and fnmatchcase(e.name, pattern)
        ]

    def first_file(self, names: Sequence[str]) -> Entry | None:
        """The first of several names that exists at the top as a regular file."""
        return next((self._by_path[n] for n in names if self.has_file(n)), None)


class Content(StrEnum):
    """What the first bytes of a file say that it is, whatever its name."""

    EMPTY = "empty"
    SAFETENSORS = "safetensors"
    ZIP = "zip"
    PICKLE = "pickle"
    JSON = "JSON"
    HTML = "HTML page"
    XML = "XML document"
    LFS_POINTER = "git-LFS pointer"
    TAR = "tar archive"
    GZIP = "gzip"
    SEVEN_ZIP = "7z archive"
    HDF5 = "HDF5"
    NUMPY = "NumPy array"
    GGUF = "GGUF"
    TEXT = "text"
    ZEROS = "zero bytes"
    BINARY = "unknown binary"


@dataclass(frozen=True, slots=True)
class FileHead:
    """The start of a file.

    content: what it looks like
    head:    its first bytes, at most 1,024
    size:    bytes, as found when it was opened
    error:   the operating system's words where it could not be opened or read; `content` then says nothing
    """

    content: Content
    head: bytes = b""
    size: int = 0
    error: str | None = None

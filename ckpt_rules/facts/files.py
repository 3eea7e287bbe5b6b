"""What a directory listing and the first bytes of a file tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

_SAVE = re.compile(
    r"(?:checkpoint|ckpt|step|global_step|epoch|iter|iteration|save)s?[-_=]?(\d+)(.*)|(\d+)()"
    r"|.+[-_](?:step|epoch|iter)=(\d+)(.*)",
    re.IGNORECASE,
)
_FILE_SAVE = re.compile(
    r"(?:checkpoint|ckpt|model|step|epoch|iter|iteration|recovery)s?[-_=]?\d+.*"
    r"|(?:checkpoint|ckpt|model)[-_](?:last|latest|best|final)|last|latest|model_best",
    re.IGNORECASE,
)
LAST = re.compile(r"(?:.*[-_])?(?:last|latest|final)(?:[-_.].*)?", re.IGNORECASE)
"""Names that stand for the newest save, such as `last.ckpt`."""

_STEPS = re.compile(r"(?:step|iter|iteration)s?[-_=]?(\d+)", re.IGNORECASE)
_NAMED_NUMBER = re.compile(r"(?:checkpoint|ckpt|epoch|save|model|recovery)s?[-_=]?(\d+)", re.IGNORECASE)
_ANY_NUMBER = re.compile(r"\d+")
_SAVE_SUFFIXES = (".ckpt", ".pth.tar", ".pth", ".pt")
_MIXED_SUFFIX = ".ckpt"
_UNFINISHED = re.compile(r"tmp|temp|part|incomplete|unfinished", re.IGNORECASE)


def saves_among(names: Iterable[str]) -> list[str]:
    """Those that are names of a run's saves (`checkpoint-500`), in the order of their numbers; unfinished ones left out.

    The first number counts, then that of steps; of equals a name with something after them (`checkpoint-500-copy`) comes
    first, and one that ends with `-last` last.
    """
    found = []
    for name in names:
        match = _SAVE.fullmatch(name)
        if match and not _UNFINISHED.search(name):
            number, rest = (g for g in match.groups() if g is not None)
            steps = [int(n[:18]) for n in _STEPS.findall(rest)]
            found.append((int(number[:18]), steps, rest.endswith("-last"), not rest, name))
    return [name for *_, name in sorted(found)]


def file_saves_among(names: Iterable[str]) -> list[str]:
    """Names of files that may each be a save of one run, oldest first: `epoch=1-step=20.ckpt`, `model_0004999.pth`, `last.ckpt`.

    They are told apart by the numbers in their names, a number of steps before one of epochs; `last` comes last.
    """
    found = []
    for name in names:
        stem, suffix = _stem(name)
        if _UNFINISHED.search(name) or not (suffix == ".ckpt" or (suffix and _FILE_SAVE.fullmatch(stem))):
            continue
        steps = [int(n[:18]) for n in _STEPS.findall(stem)]
        numbers = [int(n[:18]) for n in re.findall(r"\d+", stem)]
        found.append((bool(LAST.match(stem)), steps or numbers[-1:] or [-1], name))
    return [name for *_, name in sorted(found)]


def mixed_saves_among(directories: Sequence[str], files: Iterable[str]) -> list[str]:
    """Names of saves that may each be a directory or a file, as Lightning's `.ckpt`, oldest first.

    None where no directory is named like such a file, or another is named like a save of a different kind.
    """
    named = [name for name in directories if name.endswith(_MIXED_SUFFIX)]
    if not named or any(not name.endswith(_MIXED_SUFFIX) for name in saves_among(directories)):
        return []
    return file_saves_among([*named, *(name for name in files if name.endswith(_MIXED_SUFFIX))])


def saves_before(name: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that differ from a save's only in their numbers and come before it, the nearest first.

    None where the name does not say which of its numbers counts: `epoch=3-loss=0.25` does, `model-7-2` does not.
    """
    number = _number(name)
    if number is None:
        return []
    return [other for found, other in sorted(_alike(name, names), reverse=True) if found < number]


def saves_after(name: str, names: Iterable[str]) -> list[str]:
    """Those that come after it, the nearest first; see `saves_before`."""
    number = _number(name)
    if number is None:
        return []
    return [other for found, other in sorted(_alike(name, names)) if found > number]


def _alike(name: str, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The names that differ from a save's only in their numbers, and the number of each."""
    form = re.sub(r"\d+", "#", name)
    for other in names:
        number = _number(other)
        if number is not None and re.sub(r"\d+", "#", other) == form:
            yield number, other


def _number(name: str) -> int | None:
    """The number by which a save is told from others of its run."""
    stem, _ = _stem(name)
    for counted in (_STEPS, _NAMED_NUMBER, _ANY_NUMBER):
        if len(found := counted.findall(stem)) == 1:
            return int(found[0][:18])
    return None


def _stem(name: str) -> tuple[str, str]:
    suffix = next((s for s in _SAVE_SUFFIXES if name.endswith(s)), "")
    return name.removesuffix(suffix) if suffix else name, suffix


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


METADATA = ".metadata"
"""The file in which torch.distributed.checkpoint says what a save holds, and where."""

_METADATA_OF_RANK = re.compile(r"__(\d{1,6})\.metadata")


def rank_of_metadata(name: str) -> int | None:
    """R of `__R.metadata`, as each rank writes one where ranks save without talking to each other; None of other names."""
    match = _METADATA_OF_RANK.fullmatch(name)
    return int(match[1]) if match else None


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

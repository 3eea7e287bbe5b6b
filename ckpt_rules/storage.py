"""Where bytes come from: list a directory, open a file, read a range. The only module that touches the file system.

Ranges are read with `pread`, not mapped: a file that another process cuts short while it is mapped kills the reader
with SIGBUS, a short read is merely short.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ckpt_rules.errors import UsageError
from ckpt_rules.facts.files import Entry, EntryKind, Listing, Root, RootKind
from ckpt_rules.limits import DEFAULT_LIMITS, Limits

_BESIDE = "../"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
"""A scheme and two slashes; a local path of such a name can be given as `./s3://…`."""

_LINKED, _LINKED_DEPTH = 2_000, 3
"""Entries, and levels of directories, that are listed behind one link to a directory: more than any trainer puts there."""

_OF_THE_SYSTEM = ("/proc", "/sys", "/dev", "/run")
_NOT_LISTED = "which is not looked into"


class Source(Protocol):
    """One open file. `read` returns fewer bytes than asked for only at the end of the file."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, at most `length`; OSError where the system can't give them."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Storage(Protocol):
    """A place that holds one checkpoint."""

    def root(self) -> Root:
        """What the checkpoint's own path is."""
        ...

    def list(self) -> Listing:
        """Everything below it; only called where `root` is a directory. OSError where that can't be listed after all."""
        ...

    def look_again(self, path: str) -> Entry | None:
        """What lies at a path of the listing by now, as another listing would say; None where nothing does.

        A path that begins with `../` lies beside the checkpoint.
        """
        ...

    def open(self, path: str) -> Source:
        """Open a regular file of the listing, or with `../` one beside the checkpoint; OSError where that fails."""
        ...


class LocalSource:
    """A regular file on a local file system."""

    def __init__(self, path: Path) -> None:
        # O_NONBLOCK: a FIFO put in the file's place since the listing must not make us wait for a writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        info = os.fstat(self._fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(self._fd)
            raise OSError("is no longer a regular file")
        self.size = info.st_size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset`, at most `length`; one `pread` may return less than there is, so it repeats."""
        chunks = []
        while length > 0 and (chunk := os.pread(self._fd, min(length, 1 << 30), offset)):
            chunks.append(chunk)
            offset += len(chunk)
            length -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill a buffer with the bytes from `offset`; how many there were. It spares a new piece of memory for each read."""
        filled = 0
        while filled < len(buffer) and (count := os.preadv(self._fd, [buffer[filled:]], offset + filled)):
            filled += count
        return filled

    def forget(self, offset: int, length: int) -> None:
        """Let the system drop these bytes from its cache, where it can be told so."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)


class LocalStorage:
    """A checkpoint directory on a local file system."""

    def __init__(self, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> None:
        name = os.fspath(path)
        if not name:
            raise UsageError("the path is empty; is a variable not set?")
        if _URL.match(name):
            raise UsageError(
                f"{name} is a URL, which is not supported here yet; copy the checkpoint to a local directory"
            )
        self.path = Path(path)
        self._limits = limits

    def root(self) -> Root:
        """What the path is, with candidates where it is not a directory."""
        name = str(self.path)
        try:
            mode = self.path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
            return Root(name, RootKind.MISSING, self._similar(), link=_link(self.path))
        except OSError as error:
            return Root(name, RootKind.UNREADABLE, error=reason(error), link=_link(self.path))
        if stat.S_ISDIR(mode):
            try:
                os.scandir(self.path).close()
            except OSError as error:
                return Root(name, RootKind.UNREADABLE, error=reason(error))
            return Root(name, RootKind.DIRECTORY)
        kind = RootKind.FILE if stat.S_ISREG(mode) else RootKind.OTHER
        return Root(name, kind, (str(self.path.parent),) if kind is RootKind.FILE else ())

    def list(self) -> Listing:
        """Walk the directory; what little lies behind links to directories is listed, too."""
        walk = _Walk(self.path, self._limits)
        walk.directory("", 0, ())
        entries = tuple(sorted(walk.entries, key=lambda e: e.path))
        return Listing(entries, siblings=self._siblings(), truncated=walk.truncated)

    def look_again(self, path: str) -> Entry | None:
        """What lies at a path by now, links followed; beside the checkpoint only where links may lead out of it."""
        try:
            if path.startswith(_BESIDE) and not self._limits.outside_links and os.path.islink(self.path / path):
                return None
            info = os.stat(self.path / path)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
            return None
        except OSError as error:
            return Entry(path, EntryKind.UNREADABLE, error=reason(error))
        return _entry(path, info)

    def open(self, path: str) -> Source:
        """Open one regular file."""
        return LocalSource(self.path / path)

    def directories(self, *, links: bool = True) -> tuple[str, ...]:
        """Names of the directories at the top, with or without links to such; none where they can't be listed."""
        try:
            with os.scandir(self.path) as found:
                return tuple(sorted(e.name for e in found if _is_directory(e) and (links or not e.is_symlink())))
        except (OSError, ValueError):
            return ()

    def files(self) -> tuple[str, ...]:
        """Names of the files at the top, links left out; none where they can't be listed."""
        try:
            with os.scandir(self.path) as found:
                return tuple(sorted(e.name for e in found if e.is_file(follow_symlinks=False)))
        except (OSError, ValueError):
            return ()

    def lost_links(self) -> tuple[str, ...]:
        """Names of the links at the top that lead nowhere, or in a circle; none where they can't be listed."""
        try:
            with os.scandir(self.path) as found:
                return tuple(sorted(e.name for e in found if e.is_symlink() and not os.path.exists(e.path)))
        except (OSError, ValueError):
            return ()

    def _siblings(self) -> tuple[str, ...]:
        here = self.path.resolve()
        try:
            # Every save of a run lists all others: interned, the names are there once.
            return tuple(sorted(sys.intern(n) for n in os.listdir(here.parent) if n != here.name))
        except OSError:
            return ()

    def _similar(self) -> tuple[str, ...]:
        """Directories beside the missing path with a like name, else those in its nearest existing parent."""
        parent = next((p for p in self.path.parents if os.path.isdir(p)), None)
        if parent is None:
            return ()
        try:
            with os.scandir(parent) as found:
                names = sorted(e.name for e in found if _is_directory(e))
        except OSError:
            return ()
        wanted = self.path.relative_to(parent).parts[0] if parent != self.path else self.path.name
        close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
        return tuple(str(parent / n) for n in close or names[:3])


class FilesOfSave(LocalStorage):
    """A checkpoint that is some of the files in a directory: to all who look into it, a directory that holds nothing else.

    path:  the file that stands for all
    names: all of them, itself included
    """

    def __init__(
        self, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS, names: tuple[str, ...] = ()
    ) -> None:
        super().__init__(path, limits)
        self._names = names or (self.path.name,)

    def root(self) -> Root:
        """What the path is; a regular file counts as a directory."""
        root = super().root()
        return Root(root.path, RootKind.DIRECTORY) if root.kind is RootKind.FILE else root

    def list(self) -> Listing:
        """The files themselves; their neighbours are the names beside them."""
        entries = tuple(_entry(name, os.stat(self.path.parent / name)) for name in self._names)
        return Listing(entries, siblings=tuple(n for n in self._siblings() if n not in self._names))

    def look_again(self, path: str) -> Entry | None:
        """What lies at a path by now."""
        place = self.path.parent / path.removeprefix(_BESIDE)
        if path.startswith(_BESIDE) and not self._limits.outside_links and os.path.islink(place):
            return None
        found = LocalStorage(self.path.parent, self._limits).look_again(path.removeprefix(_BESIDE))
        return replace(found, path=path) if found else None

    def open(self, path: str) -> Source:
        """Open one of the files, or one beside them."""
        return LocalSource(self.path.parent / path.removeprefix(_BESIDE))


class OneFile(FilesOfSave):
    """A checkpoint that is a single file."""


def _link(path: Path) -> str | None:
    """What a path points to, where it is a link."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it may be one: a link to what can't be examined may lead to one, a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP


class _Walk:
    """One pass over a directory tree, bounded in entries, depth and time.

    A link to a directory may lead to all there is on the machine: behind it much less is listed, or nothing at all.
    """

    def __init__(self, top: Path, limits: Limits) -> None:
        self.top = top
        self.most, self.depth = limits.entries, limits.depth
        self.seconds, self.end = limits.seconds, time.monotonic() + limits.seconds
        self.inside = None if limits.outside_links else os.path.realpath(top)
        self.entries: list[Entry] = []
        self.truncated: str | None = None

    def directory(self, relative: str, depth: int, above: tuple[tuple[int, int], ...]) -> None:
        """List a directory and those in it."""
        path = self.top / relative
        try:
            info = os.stat(path)
            found = self._scanned(path)
        except OSError as error:
            if not relative:
                raise
            self.entries.append(Entry(relative, EntryKind.UNREADABLE, error=reason(error)))
            return
        here = (*above, (info.st_dev, info.st_ino))
        for item in found:
            if self._is_full():
                return
            name = f"{relative}/{item.name}" if relative else item.name
            entry, inside = self.entry(item, name, here)
            self.entries.append(entry)
            if inside and depth >= self.depth:
                self.truncated = f"directories are nested deeper than {self.depth} (a ruleset can raise this: `limits: {{depth: …}}`)"
            elif inside and entry.link is not None:
                self._behind(entry, depth, here)
            elif inside:
                self.directory(name, depth + 1, here)

    def _scanned(self, path: Path) -> list[os.DirEntry[str]]:
        """What lies in a directory, and no more of it than may be listed."""
        with os.scandir(path) as items:
            found = list(islice(items, self.most - len(self.entries) + 1))
        return sorted(found, key=lambda item: item.name)

    def _is_full(self) -> bool:
        if len(self.entries) >= self.most:
            self.truncated = f"there are more than {self.most:,} (a ruleset can raise this: `limits: {{entries: …}}`)"
        elif time.monotonic() > self.end:
            self.truncated = (
                f"listing it takes longer than {self.seconds:g} seconds, and {len(self.entries):,} entries were seen by then "
                "(a ruleset can raise this: `limits: {seconds: …}`)"
            )
        else:
            return False
        return True

    def _behind(self, link: Entry, depth: int, above: tuple[tuple[int, int], ...]) -> None:
        """List what a link to a directory leads to, unless that is part of the system, or too much for a checkpoint."""
        start, most, deepest, truncated = len(self.entries), self.most, self.depth, self.truncated
        real = os.path.realpath(self.top / link.path)
        if real == "/" or any(real == each or real.startswith(f"{each}/") for each in _OF_THE_SYSTEM):
            self.entries[-1] = replace(link, error=f"it leads to {real}, {_NOT_LISTED}")
            return
        self.most, self.depth = min(most, start + _LINKED), min(deepest, depth + _LINKED_DEPTH)
        self.directory(link.path, depth + 1, above)
        if self.truncated != truncated and time.monotonic() <= self.end:
            del self.entries[start:]
            words = f"more than {_LINKED:,} files, or directories more than {_LINKED_DEPTH} deep"
            self.entries[-1] = replace(link, error=f"it leads to {real}, a directory with {words}, {_NOT_LISTED}")
            self.truncated = truncated
        self.most, self.depth = most, deepest

    def _is_inside(self, path: str) -> bool:
        return os.path.commonpath([os.path.realpath(path), str(self.inside)]) == self.inside

    def entry(self, item: os.DirEntry[str], name: str, above: tuple[tuple[int, int], ...]) -> tuple[Entry, bool]:
        """The entry for one name, and whether it is a directory to walk into."""
        link = None
        try:
            if item.is_symlink():
                link = os.readlink(item.path)
                if self.inside and not self._is_inside(item.path):
                    error = "it is a link out of the checkpoint, and `limits: {outside_links: false}` forbids those"
                    return Entry(name, EntryKind.UNREADABLE, link=link, error=error), False
            info = os.stat(item.path)
        except FileNotFoundError:
            kind = EntryKind.BROKEN_LINK if link is not None else EntryKind.UNREADABLE
            return Entry(name, kind, link=link, error=None if link else "it vanished while it was listed"), False
        except OSError as error:
            kind = EntryKind.LINK_LOOP if error.errno == errno.ELOOP else EntryKind.UNREADABLE
            return Entry(name, kind, link=link, error=reason(error)), False
        found = _entry(name, info, link)
        if found.kind is EntryKind.DIRECTORY and (info.st_dev, info.st_ino) in above:
            return Entry(name, EntryKind.LINK_LOOP, link=link, error="leads back to a directory above it"), False
        return found, found.kind is EntryKind.DIRECTORY


def _entry(name: str, info: os.stat_result, link: str | None = None) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(info.st_mode), EntryKind.DEVICE)
    return Entry(name, kind, info.st_size if kind is EntryKind.FILE else 0, info.st_mtime_ns, link)


_KINDS = {
    stat.S_IFREG: EntryKind.FILE,
    stat.S_IFDIR: EntryKind.DIRECTORY,
    stat.S_IFIFO: EntryKind.FIFO,
    stat.S_IFSOCK: EntryKind.SOCKET,
}


def reason(error: OSError) -> str:
    """The system's words for an error, lower case, without errno and path: `permission denied`."""
    text = error.strerror or str(error) or type(error).__name__
    return text[0].lower() + text[1:]

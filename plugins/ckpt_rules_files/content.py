"""Rules about what each file holds: readable, not empty, no stand-in, of the format that its name promises."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    Content,
    Entry,
    EntryKind,
    FileHead,
    Place,
    Problem,
    Rule,
    Severity,
    expected_format,
    hollow_saves,
)
from ckpt_rules_files.loaded import LOGS, is_loaded

_STAND_INS = {
    Content.LFS_POINTER: "a git-LFS pointer",
    Content.HTML: "an HTML page",
    Content.XML: "an XML document",
}
_ERROR_KEYS = frozenset({"error", "errors", "message", "detail"})
_ERROR_BODY = re.compile(rb"\s*<(?:Error|ErrorResponse)>")
_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
_CHECK = "grant read permission, or check the mount"
_NOT_FOLLOWED = "remove the link, or put a copy of what belongs to the checkpoint in its place"


def _heads(checkpoint: Checkpoint) -> Iterator[tuple[Entry, FileHead]]:
    """Every file that some loader reads, with its first bytes; unreadable ones left out."""
    saves = {entry.path for entry in checkpoint.fact(hollow_saves)}
    for entry in checkpoint.listing.files():
        if is_loaded(entry) or entry.path in saves:
            head = checkpoint.files.sniff(entry.path)
            if head.error is None:
                yield entry, head


class Empty(Rule):
    """A file that a loader reads has zero bytes.

    ## What it checks
    The size of every file with a suffix of weights, state or configuration, and of pointer files such as `latest`; also
    of a file without a telling suffix (`checkpoint_20`), if it is named like a save and nothing else holds weights, or
    like a complete save next to it. Markers that are empty by design (`_SUCCESS`, `.gitkeep`) are ignored.

    ## Why it matters
    A file is created before it is filled: power loss, a full disk or a preempted job leaves it empty, and its content
    is lost.

    ## How to repair
    Copy the file again if the original is intact; otherwise resume from an earlier save.
    """

    id = "files/empty"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each empty file."""
        for entry, head in _heads(checkpoint):
            if head.content is Content.EMPTY:
                yield Problem(
                    message="the file is empty: 0 bytes",
                    place=Place(path=entry.path),
                    help="copy it again, or resume from an earlier save",
                    severity=checkpoint.layout.severity_of_damage(entry.path),
                    data={"nbytes": 0},
                )


class Unreadable(Rule):
    """Something in the checkpoint can't be read, or is not a regular file.

    ## What it checks
    Permissions and I/O errors on every file, including those that occurred while another rule read it; pipes, sockets
    and devices; links that are broken, circular, or lead out of the checkpoint to a place that does not exist; a
    directory with more files than are listed, or that takes too long to list; as a warning, a link to a directory of
    the system (`/proc`), or to one with far more in it than a checkpoint has.

    ## Why it matters
    A pipe blocks a loader forever. A snapshot copied without the cache that its links point to has all the names but no
    content.

    ## How to repair
    Grant read permission; copy with links followed (`cp -L`, `rsync -L`); remove what does not belong to the checkpoint.
    """

    id = "files/unreadable"
    tags = frozenset({"files", "load", "resume"})
    last = True

    passed_over: tuple[str, ...] = Field(
        default=LOGS,
        description="Globs of paths that no loader reads and that may hold broken links.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each entry that can't be read, and one where some entries were not even listed."""
        if error := checkpoint.files.read_errors.get("."):
            yield Problem(message=f"the directory can't be listed: {error}", help=_CHECK)
        if checkpoint.listing.truncated:
            yield Problem(
                message=f"not everything in the checkpoint could be listed: {checkpoint.listing.truncated}",
                place=Place(path="."),
                help="name the directory of one checkpoint; if it already is one, raise the limit",
            )
        for entry in checkpoint.listing:
            if any(fnmatchcase(entry.path, glob) for glob in self.passed_over):
                continue
            if why := self._fault(checkpoint, entry):
                yield Problem(
                    message=why[0],
                    place=Place(path=entry.path),
                    help=why[1],
                    severity=Severity.WARNING if entry.kind is EntryKind.DIRECTORY else None,
                    data={"kind": entry.kind.value},
                )

    def _fault(self, checkpoint: Checkpoint, entry: Entry) -> tuple[str, str] | None:
        link = f"the link to '{entry.link}'"
        match entry.kind:
            case EntryKind.DIRECTORY:
                return (f"{link} was not followed: {entry.error}", _NOT_FOLLOWED) if entry.error else None
            case EntryKind.FILE:
                error = checkpoint.files.sniff(entry.path).error or checkpoint.files.read_errors.get(entry.path)
                return (f"the file can't be read: {error}", _CHECK) if error else None
            case EntryKind.BROKEN_LINK:
                return f"{link} leads nowhere", "copy the checkpoint with links followed (`cp -L`, `rsync -L`)"
            case EntryKind.LINK_LOOP:
                return f"{link} leads in a circle", "remove the link"
            case EntryKind.UNREADABLE:
                return f"it can't be read: {entry.error}", _CHECK
            case kind:
                return (
                    f"it is a {kind.value}, not a regular file",
                    "remove it: opening it blocks the loader indefinitely",
                )


class Placeholder(Rule):
    """A file is only a placeholder for the real one.

    ## What it checks
    The first bytes of every file that a loader reads: git-LFS pointers, HTML and XML error pages, JSON error bodies,
    and the placeholders that cloud drives leave for files not yet downloaded.

    ## Why it matters
    The clone or download fetched only a reference to the file. Loaders fail with misleading messages (`invalid load
    key, 'v'`, `header too large`).

    ## How to repair
    Fetch the real file: `git lfs pull`, or download it again and look at the answer's status.
    """

    id = "files/placeholder"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each stand-in."""
        for entry, head in _heads(checkpoint):
            if what := _stand_in(entry, head):
                fetch = "run `git lfs pull`" if head.content is Content.LFS_POINTER else "download the file again"
                yield Problem(
                    message=f"the file is {what}, {head.size:,} bytes long, not what its name says",
                    place=Place(path=entry.path),
                    help=fetch,
                    severity=checkpoint.layout.severity_of_damage(entry.path),
                    data={"content": head.content.value, "nbytes": head.size},
                )
        for entry in checkpoint.listing.files("*.icloud"):
            yield Problem(
                message="the file is a cloud drive's placeholder: its content was never downloaded",
                place=Place(path=entry.path),
                help="download the file from the drive",
            )


def _stand_in(entry: Entry, head: FileHead) -> str | None:
    if head.content is Content.LFS_POINTER:
        size = _LFS_SIZE.search(head.head)
        return "a git-LFS pointer" + (f" to {int(size[1]):,} bytes" if size and len(size[1]) < 20 else "")
    if head.content in _STAND_INS:
        return _STAND_INS[head.content]
    if _ERROR_BODY.match(head.head):
        return "an XML error message"
    if head.content is Content.JSON and _is_error(head.head, strictly=entry.suffix == ".json"):
        return "a JSON error message"
    return None


def _is_error(raw: bytes, *, strictly: bool) -> bool:
    """Whether JSON is what a server says when it refuses; `strictly`, and nothing else."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    if not isinstance(body, dict) or not _ERROR_KEYS & body.keys():
        return False
    return not strictly or body.keys() <= _ERROR_KEYS | {"status", "code"}


class WrongFormat(Rule):
    """A file's content is not in the format that its name says.

    ## What it checks
    The first bytes of files with a suffix that promises a format: a pickle named `.safetensors`, a tar or 7z archive
    named `.pth`, a safetensors file named `.bin`. Placeholders and empty files are reported by their own rules.
    SpeechBrain, recognised by its `CKPT.yaml`, also writes text files named `.ckpt`.

    ## Why it matters
    Loaders choose their parser by the name. The resulting error reports a damaged file, although only the name, or the
    program that wrote it, is wrong.

    ## How to repair
    Rename the file to what it is, unpack it, or convert it with the library that owns the format.
    """

    id = "files/wrong-format"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file of another format."""
        for entry, head in _heads(checkpoint):
            expected = expected_format(entry.name)
            if expected is None or not expected.certain or head.content in (*expected.contents, Content.EMPTY):
                continue
            if _stand_in(entry, head) is None and not _is_of_speechbrain(checkpoint, entry, head):
                yield Problem(
                    message=f"the file is named like a {expected.name} file, but its content is {head.content.value}",
                    place=Place(path=entry.path),
                    help=f"rename it to what it is, or write it again as {expected.name}",
                    severity=checkpoint.layout.severity_of_damage(entry.path),
                    data={"expected": expected.name, "content": head.content.value},
                )


def _is_of_speechbrain(checkpoint: Checkpoint, entry: Entry, head: FileHead) -> bool:
    """Whether SpeechBrain wrote it: each part of its state by its own hook, counters and the like as text or YAML."""
    beside = f"{entry.path.removesuffix(entry.name)}CKPT.yaml"
    is_text = head.content in (Content.TEXT, Content.JSON)
    return is_text and entry.suffix == ".ckpt" and checkpoint.listing.get(beside) is not None

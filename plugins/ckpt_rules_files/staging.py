"""Leftovers of interrupted saves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Entry, EntryKind, Place, Problem, Rule, Severity, conventions

_TEMPORARY = "|".join(conventions.saves.TEMPORARY)
_INSIDE = re.compile(
    rf"(?:tmp-)?checkpoint-\d+\.tmp|tmp-checkpoint-\d+|.+\.(?:{_TEMPORARY}|crdownload|download)"
    r"|\.tmp\w{6}|.+-unfinished|.+\.orbax-checkpoint-tmp(?:-\d+)?|tmp\.pth\.tar",
    re.IGNORECASE,
)
_STAGING_PARTS = re.compile(rf"^tmp[-_.]|\.orbax-checkpoint-tmp.*$|\.(?:{_TEMPORARY})$|-unfinished$", re.IGNORECASE)

_MARKER = "-unfinished"


class StagingLeftover(Rule):
    """A temporary file or directory of an interrupted save was left behind.

    ## What it checks
    Names used by savers until a file is complete: `tmp-checkpoint-N`, `*.tmp`, `*.part`, `*.incomplete`,
    `*-unfinished`, `.tmp??????` of safetensors, orbax temporary directories; inside the checkpoint, and next to it if
    the name says that it belongs to this save. An error if the only copy of a file that a resume needs is inside one,
    and for the file `NAME-unfinished` next to `NAME`, with which NeMo marks a save in progress.

    ## Why it matters
    A save was killed between writing and renaming. Files with their final name may be from an earlier save than those
    without.

    ## How to repair
    Delete the leftover if this checkpoint is otherwise complete; otherwise resume from an earlier save.
    """

    id = "files/staging-leftover"
    severity = Severity.WARNING
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each leftover at its topmost directory."""
        listing = checkpoint.listing
        reported: list[str] = []
        for entry in listing:
            if any(entry.path.startswith(f"{above}/") for above in reported):
                continue
            if entry.kind in (EntryKind.FILE, EntryKind.DIRECTORY) and _INSIDE.fullmatch(entry.name):
                reported.append(entry.path)
                yield self._inside(checkpoint, entry)
        own = os.path.basename(os.path.abspath(checkpoint.path))
        for name in listing.siblings:
            if own and name != own and _STAGING_PARTS.search(name) and _STAGING_PARTS.sub("", name) == own:
                yield _beside(checkpoint, name)

    def _inside(self, checkpoint: Checkpoint, entry: Entry) -> Problem:
        listing = checkpoint.listing
        within = {e.name for e in listing.files() if e.path.startswith(f"{entry.path}/")} or {
            re.sub(rf"\.(?:{_TEMPORARY})$", "", entry.name)
        }
        needed = [n for r in checkpoint.requirements for n in r.names if not any(map(listing.has_file, r.names))]
        only = sorted(within.intersection(needed))
        tail = f", and the only copy of {only[0]} is in it" if only else ""
        return Problem(
            message=f"'{entry.path}' is left over from a save that did not finish{tail}",
            place=Place(path=entry.path),
            help="resume from an earlier save" if only else "delete it if this checkpoint is otherwise complete",
            severity=Severity.ERROR if only else None,
            data={"only_copies": only},
        )


def _beside(checkpoint: Checkpoint, name: str) -> Problem:
    entry = checkpoint.files.sibling(name)
    if name.endswith(_MARKER) and entry is not None and entry.kind is EntryKind.FILE:
        return Problem(
            message=f"'{name}' next to the checkpoint marks a save that was started but not finished: NeMo does not "
            "resume from it",
            help="resume from an earlier save; NeMo deletes this one when it starts",
            severity=Severity.ERROR,
            data={"leftover": name},
        )
    return Problem(
        message=f"'{name}' next to the checkpoint is left over from a save of it that did not finish",
        help="delete it if this checkpoint is complete, or resume from an earlier save",
        data={"leftover": name},
    )

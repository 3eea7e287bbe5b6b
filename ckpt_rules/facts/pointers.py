"""Files that name a save: `latest`, `last_checkpoint`, `best_model_checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pointer:
    """The name of a save, written down in a file.

    path:   the file, relative to the checkpoint; `../latest` lies beside the checkpoint
    target: what it names, as written; '' where it names nothing
    exists: whether that is there
    why:    what a trainer does that follows it to nowhere, one sentence without a full stop
    key:    where in the file, or None for the whole of it
    needed: `error` or `warning` where a resume goes wrong with a pointer to nowhere, else `info`
    newer:  the name of a newer complete save that it should name, or None
    fault:  why what lies there can't be read as a name, or None
    """

    path: str
    target: str
    exists: bool
    why: str
    key: str | None = None
    needed: str = "error"
    newer: str | None = None
    fault: str | None = None

"""Files that name a save: `latest`, `last_checkpoint`, `best_model_checkpoint`."""

from __future__ import annotations

from dataclasses import dataclass

from ckpt_rules.finding import Severity


@dataclass(frozen=True, slots=True)
class Pointer:
    """The name of a save, written down in a file.

    path:   the file, relative to the checkpoint; `../latest` lies beside the checkpoint
    target: what it names, as written; '' where it names nothing
    exists: whether that is there
    why:    what a trainer does that follows it to nowhere, one sentence without a full stop
    key:    where in the file, or None for the whole of it
    severity: of a pointer to nowhere: an error or a warning where a resume goes wrong with it, else information
    newer:  the name of a newer complete save that it should name, or None
    fault:  why what lies there can't be read as a name, or None
    """

    path: str
    target: str
    exists: bool
    why: str
    key: str | None = None
    severity: Severity | None = Severity.ERROR
    newer: str | None = None
    fault: str | None = None

"""Directories of checkpoints: which of those in a run can be resumed from, and which is the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Entry, EntryKind, file_saves_among, saves_among
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.report import Report, Verdict
from ckpt_rules.storage import LocalStorage

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

_SEVERAL = 2
_FAINT = 10
"""Score below which a layout has seen weights and no more: a final model, beside the checkpoints of its run."""


def checkpoints_in(
    path: str, plugins: Plugins, limits: Limits = DEFAULT_LIMITS, timeout: float | None = None
) -> tuple[str, ...]:
    """The checkpoints of a run by the numbers in their names, oldest first; none where the path is no run.

    A run is a directory with others in it that are named like saves (`checkpoint-500`, `step_1000`, `epoch=3`), or with
    several files that are each a save (`epoch=3-step=90.ckpt`), and that is no checkpoint itself. A layout that takes more
    seconds than `timeout` is not asked further.
    """
    storage = LocalStorage(path, limits)
    saves = saves_among(storage.directories())
    files = [] if saves else file_saves_among(storage.files())
    if not saves and len(files) < _SEVERAL:
        return ()
    checkpoint, _ = open_checkpoint(storage, plugins, limits, timeout)
    if checkpoint.match is not None and checkpoint.match.score >= _FAINT:
        return ()
    if files:
        paths = tuple(f"{path.rstrip('/')}/{name}" for name in files)
        return paths if any(_is_checkpoint(p, plugins, limits, timeout) for p in paths) else ()
    try:
        listing = checkpoint.listing
    except FactUnavailable:
        return ()
    empty = set() if listing.truncated else set(saves) - {e.path.partition("/")[0] for e in listing if _holds(e)}
    return tuple(f"{path.rstrip('/')}/{name}" for name in saves if name not in empty)


def _is_checkpoint(path: str, plugins: Plugins, limits: Limits, timeout: float | None) -> bool:
    """Whether a file is one that a layout recognises."""
    checkpoint, _ = open_checkpoint(LocalStorage(path, limits), plugins, limits, timeout)
    return checkpoint.match is not None


def _holds(entry: Entry) -> bool:
    """Whether it shows that the directory at the top is not empty; one that can't be read may hold the newest save."""
    return entry.kind is EntryKind.UNREADABLE or (entry.kind is EntryKind.FILE and "/" in entry.path)


def newest_passing(paths: tuple[str, ...], verify: Callable[[str], Report]) -> Iterator[Report]:
    """Reports from the newest checkpoint back to the first that passes, which comes last."""
    for path in reversed(paths):
        report = verify(path)
        yield report
        if report.verdict is Verdict.PASSED:
            return

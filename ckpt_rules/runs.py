"""Directories of checkpoints: which of those in a run can be resumed from, and which is the newest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import (
    Entry,
    EntryKind,
    RootKind,
    file_saves_among,
    mixed_saves_among,
    saves_among,
    saves_before,
)
from ckpt_rules.finding import Severity
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.report import Report, Verdict
from ckpt_rules.storage import LocalStorage

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.plugins import Plugins

_SEVERAL = 2
_CANDIDATES = 5
"""Earlier saves that are looked at for a complete one."""

_FAINT = 10
"""Score below which a layout has seen weights and no more: a final model, beside the checkpoints of its run."""


def checkpoints_in(
    path: str, plugins: Plugins, limits: Limits = DEFAULT_LIMITS, timeout: float | None = None
) -> tuple[str, ...]:
    """The checkpoints of a run by the numbers in their names, oldest first; none where the path is no run.

    A run is a directory with others in it that are named like saves (`checkpoint-500`, `step_1000`, `epoch=3`), or with
    several files that are each a save (`epoch=3-step=90.ckpt`), or with both under names of that kind, and that is no checkpoint
    itself. A layout that takes more
    seconds than `timeout` is not asked further.
    """
    storage = LocalStorage(path, limits)
    mixed = _mixed(storage)
    saves = [] if mixed else saves_among(storage.directories())
    files = [] if saves or mixed else file_saves_among(storage.files())
    if not saves and not mixed and len(files) < _SEVERAL:
        return ()
    checkpoint, _ = open_checkpoint(storage, plugins, limits, timeout)
    if checkpoint.match is not None and checkpoint.match.score >= _FAINT:
        return ()
    if files or mixed:
        paths = tuple(f"{path.rstrip('/')}/{name}" for name in (*files, *mixed))
        return paths if any(_is_checkpoint(p, plugins, limits, timeout) for p in paths) else ()
    try:
        listing = checkpoint.listing
    except FactUnavailable:
        return ()
    empty = set() if listing.truncated else set(saves) - {e.path.partition("/")[0] for e in listing if _holds(e)}
    return tuple(f"{path.rstrip('/')}/{name}" for name in saves if name not in empty)


def _mixed(storage: LocalStorage) -> list[str]:
    """Saves of a run in which some are directories with the names of files."""
    return mixed_saves_among(storage.directories(links=False), storage.files())


def _is_checkpoint(path: str, plugins: Plugins, limits: Limits, timeout: float | None) -> bool:
    """Whether a file or directory is one that a layout recognises."""
    checkpoint, _ = open_checkpoint(LocalStorage(path, limits), plugins, limits, timeout)
    return checkpoint.match is not None


def _holds(entry: Entry) -> bool:
    """Whether it shows that the directory at the top is not empty; one that can't be read may hold the newest save."""
    return entry.kind is EntryKind.UNREADABLE or (entry.kind is EntryKind.FILE and "/" in entry.path)


def save_before(
    checkpoint: Checkpoint,
    plugins: Plugins,
    limits: Limits = DEFAULT_LIMITS,
    timeout: float | None = None,
    layout: str | None = None,
) -> Checkpoint:
    """The save of the same run before this one, by the numbers in their names; FactUnavailable where there is none.

    It is the nearest that is of the same layout and has every file that its layout needs.
    """
    folder, name = os.path.split(os.path.abspath(checkpoint.path))
    beside = LocalStorage(folder, limits)
    alone = file_saves_among(beside.files()) if checkpoint.is_one_file else saves_among(beside.directories())
    saves = _mixed(beside) or alone
    earlier = saves_before(name, saves) if name in saves else []
    if not earlier:
        raise FactUnavailable("no earlier save of its run lies beside it, and --previous names none")
    for candidate in earlier[:_CANDIDATES]:
        found, _ = open_checkpoint(
            LocalStorage(os.path.join(folder, candidate), limits), plugins, limits, timeout, layout
        )
        if found.layout is checkpoint.layout and _looks_complete(found, weights=_has_weights(checkpoint)):
            return found
    raise FactUnavailable(f"the earlier saves beside it, such as {earlier[0]}, are incomplete or of another layout")


def named_save(
    path: str,
    plugins: Plugins,
    limits: Limits = DEFAULT_LIMITS,
    timeout: float | None = None,
    layout: str | None = None,
) -> Checkpoint:
    """The save at a path, to compare another with; UsageError where none can be there."""
    checkpoint, _ = open_checkpoint(LocalStorage(path, limits), plugins, limits, timeout, layout)
    if checkpoint.root.kind is not RootKind.DIRECTORY:
        raise UsageError(
            f"the earlier save {path} can't be looked into: {checkpoint.root.error or 'there is no checkpoint'}"
        )
    return checkpoint


def _looks_complete(checkpoint: Checkpoint, *, weights: bool) -> bool:
    """Whether all needed files are there; `weights` tells whether saves of the run hold any."""
    try:
        unmet = [needed for needed in checkpoint.unmet if needed.severity is Severity.ERROR]
    except FactUnavailable:
        return False
    return not unmet and (_has_weights(checkpoint) or not weights)


def _has_weights(checkpoint: Checkpoint) -> bool:
    try:
        return bool(checkpoint.weights.complete().files)
    except FactUnavailable:
        return False


def newest_passing(paths: tuple[str, ...], verify: Callable[[str], Report]) -> Iterator[Report]:
    """Reports from the newest checkpoint back to the first that passes, which comes last."""
    for path in reversed(paths):
        report = verify(path)
        yield report
        if report.verdict is Verdict.PASSED:
            return

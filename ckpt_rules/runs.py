"""Directories of checkpoints: which of those in a run can be resumed from, and which is the newest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ckpt_rules.conventions.saves import LAST, mixed_saves_among, saves_before
from ckpt_rules.conventions.suffixes import SAVED
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.exports import exported_files, exports_among, is_whole, runs_of_exports
from ckpt_rules.facts.files import Entry, EntryKind, RootKind
from ckpt_rules.finding import Severity
from ckpt_rules.layout import PlainFiles, missing_requirements
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.report import Report, Verdict
from ckpt_rules.save_names import SaveNames
from ckpt_rules.storage import LocalStorage
from ckpt_rules.traits import ANY

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.plugins import Plugins

_SEVERAL = 2
_CANDIDATES = 5
"""Earlier saves that are looked at for a complete one."""

_FOLDERS, _DOWN = 200, 3
"""Directories that are searched for runs, and how far down."""

_SAVED = SAVED | {".gguf", ".zarray"}
"""Ends of names that trainers give to weights and state; and `.metadata` and `.zarray` are names."""

_FAINT = 10
"""Score below which a layout has seen weights and no more: a final model, beside the checkpoints of its run."""


def checkpoints_in(
    path: str, plugins: Plugins, limits: Limits = DEFAULT_LIMITS, timeout: float | None = None
) -> tuple[str, ...]:
    """The checkpoints of the run at a path, oldest first; none where there is no run. UsageError where there are several."""
    runs = runs_in(path, plugins, limits, timeout)
    if len(runs) > 1:
        raise UsageError(f"{path} holds {len(runs)} runs; name one of them: {', '.join(sorted(runs))}")
    return next(iter(runs.values()), ())


def runs_in(
    path: str, plugins: Plugins, limits: Limits = DEFAULT_LIMITS, timeout: float | None = None
) -> dict[str, tuple[str, ...]]:
    """The checkpoints of each run by the numbers in their names, oldest first; none where the path is a checkpoint itself.

    A run is a directory with others in it that are named like saves (`checkpoint-500`, `step_1000`, `epoch=3`), or with
    several files that are each a save (`epoch=3-step=90.ckpt`), or with both under names of that kind. It may lie up to three directories down, as in
    `version_0/checkpoints`. A layout that takes more seconds than `timeout` is not asked further.
    """
    storage, names = LocalStorage(path, limits), SaveNames(plugins.layouts)
    declared = tuple(f"{path.rstrip('/')}/{name}" for name in names.declared_files(storage.files()))
    if declared and _any(declared, plugins, limits, timeout):
        return {path: declared}
    here = _mixed(storage) or names.directories(storage.directories()) or _several(_files(storage, names))
    folders = [path] if here else list(_folders_with_saves(path.rstrip("/"), names))
    if not folders or _is_checkpoint(path, plugins, limits, timeout, is_alone=True):
        return {}
    found = {folder: _saves(folder, plugins, limits, timeout) for folder in folders}
    runs = {run: saves for run, saves in found.items() if saves and (here or _any(saves, plugins, limits, timeout))}
    if len(runs) < _SEVERAL:
        return runs
    exports = runs_of_exports(
        runs, lambda save: open_checkpoint(LocalStorage(save, limits), plugins, limits, timeout)[0]
    )
    return {run: saves for run, saves in runs.items() if run not in exports}


def itself(path: str, plugins: Plugins, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """What a trainer is told to resume from where the path is a checkpoint and no run; None where it is neither.

    That is the path, or the file in it that holds the whole. What no layout recognises may be one where it has a save's name, or
    where a file in it may belong to one: nobody can say that there is no save.
    """
    checkpoint, _ = open_checkpoint(LocalStorage(path, limits), plugins, limits)
    if checkpoint.match is None:
        named = SaveNames(plugins.layouts).directories([os.path.basename(os.path.abspath(path))])
        return path if named or checkpoint.files.is_one_file or _may_hold_a_save(checkpoint) else None
    if checkpoint.files.is_in_files or not checkpoint.layout.one_file:
        return path
    try:
        file, weights = checkpoint.state.path, checkpoint.weights.files
    except FactUnavailable:
        return path
    return os.path.join(path, file) if {w.path for w in weights} == {file} else path


def _may_hold_a_save(checkpoint: Checkpoint) -> bool:
    """Whether a file anywhere in it has the suffix of weights or state, or not all of it could be looked at."""
    try:
        listing = checkpoint.listing
    except FactUnavailable:
        return True
    return listing.truncated is not None or any(
        entry.kind is EntryKind.UNREADABLE or entry.suffix in _SAVED or entry.name in _SAVED for entry in listing
    )


def _folders_with_saves(top: str, names: SaveNames) -> Iterator[str]:
    """Directories some way down that hold saves by their names; each once, whatever links lead to it."""
    queue, seen, depth = [top], set[str](), {top: 0}
    while queue and len(seen) < _FOLDERS:
        folder = queue.pop(0)
        real = _real(folder)
        if real is None or real in seen:
            continue
        seen.add(real)
        storage = LocalStorage(folder or "/")
        inside = storage.directories()
        if folder != top and (names.directories(inside) or names.files(storage.files())):
            yield folder
        elif depth[folder] < _DOWN:
            below = [f"{folder}/{name}" for name in inside]
            depth.update(dict.fromkeys(below, depth[folder] + 1))
            queue += below


def _real(path: str) -> str | None:
    """The path without links; None where no path can be such a text."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return None


def _saves(path: str, plugins: Plugins, limits: Limits, timeout: float | None) -> tuple[str, ...]:
    """The saves that lie in a directory, oldest first; empty directories and exported weights left out."""
    storage, names = LocalStorage(path, limits), SaveNames(plugins.layouts)
    path = path.rstrip("/")
    mixed = _mixed(storage)
    directories = [] if mixed else names.directories(storage.directories())
    files = tuple(f"{path}/{name}" for name in mixed or _files(storage, names))

    def opened(name: str) -> Checkpoint:
        return open_checkpoint(LocalStorage(f"{path}/{name}", limits), plugins, limits, timeout)[0]

    if directories:
        beside = any(is_whole(opened(os.path.basename(file))) for file in files[-1:])
        meant = _meant(storage, directories, opened, beside=beside)
        if meant or not beside:
            return tuple(f"{path}/{name}" for name in _with_lost_links(meant, storage, names))
    if not _any(files, plugins, limits, timeout):
        return ()
    exports = set() if mixed else exported_files([os.path.basename(file) for file in files], opened)
    return tuple(file for file in files if os.path.basename(file) not in exports)


def _meant(storage: LocalStorage, saves: list[str], opened: Callable[[str], Checkpoint], *, beside: bool) -> list[str]:
    """Those of the directories that something was written to, and that are not exports."""
    try:
        listing = storage.list()
    except OSError:
        return saves
    if listing.truncated:
        return saves
    filled = {e.path.partition("/")[0] for e in listing if _holds(e)}
    saves = [name for name in saves if name in filled]
    exports = exports_among(saves, listing, opened, beside=beside)
    return [name for name in saves if name not in exports]


def _several(names: list[str]) -> list[str]:
    return names if len(names) >= _SEVERAL else []


def _mixed(storage: LocalStorage) -> list[str]:
    """Saves of a run in which some are directories with the names of files."""
    return mixed_saves_among(storage.directories(links=False), (*storage.files(), *storage.lost_links()))


def _files(storage: LocalStorage, names: SaveNames) -> list[str]:
    """Saves that are files, and links with the names of such that lead nowhere: a trainer that follows one stops."""
    return names.files((*storage.files(), *storage.lost_links()))


def _with_lost_links(saves: list[str], storage: LocalStorage, names: SaveNames) -> list[str]:
    """Saves that are directories, and links that lead nowhere with a name of that kind, or of the newest."""
    lost = storage.lost_links()
    numbered = set(names.directories(lost))
    newest = [name for name in lost if name not in numbered and LAST.fullmatch(name) and not os.path.splitext(name)[1]]
    return [*(names.directories((*saves, *numbered)) if numbered else saves), *newest]


def _any(paths: tuple[str, ...], plugins: Plugins, limits: Limits, timeout: float | None) -> bool:
    """Whether a layout recognises any of them, the newest being asked first."""
    return any(_is_checkpoint(path, plugins, limits, timeout) for path in reversed(paths))


def _is_checkpoint(
    path: str, plugins: Plugins, limits: Limits, timeout: float | None, *, is_alone: bool = False
) -> bool:
    """Whether a layout recognises it; with `is_alone`, as one that training resumes from, whatever else lies in it."""
    checkpoint, _ = open_checkpoint(LocalStorage(path, limits), plugins, limits, timeout)
    if checkpoint.match is None:
        return False
    return not is_alone or (checkpoint.layout.resumable and checkpoint.match.score >= _FAINT)


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
    beside, names = LocalStorage(folder, limits), SaveNames(plugins.layouts)
    alone = names.files(beside.files()) if checkpoint.files.is_in_files else names.directories(beside.directories())
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
    if checkpoint.files.root.kind is not RootKind.DIRECTORY:
        raise UsageError(
            f"the earlier save {path} can't be looked into: {checkpoint.files.root.error or 'there is no checkpoint'}"
        )
    return checkpoint


def _looks_complete(checkpoint: Checkpoint, *, weights: bool) -> bool:
    """Whether all needed files are there; `weights` tells whether saves of the run hold any."""
    try:
        unmet = [needed for needed in missing_requirements(checkpoint) if needed.severity is Severity.ERROR]
    except FactUnavailable:
        return False
    return not unmet and (_has_weights(checkpoint) or not weights)


def _has_weights(checkpoint: Checkpoint) -> bool:
    try:
        return bool(checkpoint.weights.complete().files)
    except FactUnavailable:
        return False


def newest_passing(
    paths: tuple[str, ...], verify: Callable[[str], Report], plugins: Plugins, limits: Limits = DEFAULT_LIMITS
) -> Iterator[tuple[Report, bool]]:
    """Reports from the newest checkpoint back to the first that can be resumed from, which comes last and with True.

    That is one that passes, and that a layout recognises where one recognises an earlier save: else it is still being written.
    One of which the files alone were judged is none: nobody asked whether training can be resumed from it.
    """
    for number, path in reversed(list(enumerate(paths))):
        report = verify(path)
        earlier = paths[max(0, number - _CANDIDATES) : number]
        strange = report.layout.name == PlainFiles.name and _any(earlier, plugins, limits, None)
        found = report.verdict is Verdict.PASSED and not strange and report.layout.name != ANY
        yield report, found
        if found:
            return

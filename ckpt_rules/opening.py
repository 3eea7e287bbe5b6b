"""A path -> a checkpoint with its layout: every layout is asked, and the best match is taken."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import RootKind
from ckpt_rules.finding import Severity
from ckpt_rules.layout import AnyFiles, PlainFiles
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.plugin import crash_of
from ckpt_rules.report import Crash, LayoutSummary, Notice
from ckpt_rules.save_names import files_of_save
from ckpt_rules.storage import FilesOfSave, LocalStorage, OneFile
from ckpt_rules.time_limit import limited
from ckpt_rules.traits import ANY, Match

if TYPE_CHECKING:
    from ckpt_rules.layout import Layout
    from ckpt_rules.plugins import Plugins
    from ckpt_rules.storage import Storage

_FAINTEST, _SUREST = 1, 100


def open_checkpoint(
    storage: Storage,
    plugins: Plugins,
    limits: Limits = DEFAULT_LIMITS,
    timeout: float | None = None,
    layout: str | None = None,
) -> tuple[Checkpoint, list[Notice]]:
    """The checkpoint with its layout chosen; a layout that raises, or takes more seconds than `timeout`, is noted.

    layout: the name of the one to choose, whatever others make of the directory

    A path that is a file is listed as a directory that holds nothing else, whether or not a layout recognises it; one that
    stands for a save of several files, as a layout declares, as one that holds those.
    """
    checkpoint = Checkpoint(storage, limits, PlainFiles())
    notices = [_crashed(f"the plugin {p} could not be loaded", p.crash) for p in plugins.broken if p.crash]
    one_file = checkpoint.files.root.kind is RootKind.FILE
    if one_file:
        if several := _of_several_files(checkpoint, plugins, timeout, layout, notices):
            return several, notices
        checkpoint = Checkpoint(OneFile(checkpoint.path, limits), limits, PlainFiles())
    if checkpoint.files.root.kind is RootKind.DIRECTORY:
        layouts = tuple(each for each in plugins.layouts if each.one_file or not one_file)
        matches: list[tuple[Match | None, Layout]] = []
        highest = 0
        for each in sorted(layouts, key=lambda each: -each.ceiling):
            if highest > each.ceiling and layout is None:
                continue  # it may open many files, to no effect
            match = _asked(each, checkpoint, plugins, timeout, notices)
            highest = max(highest, match.score if match else 0)
            matches.append((match, each))
        _choose(checkpoint, matches, layout, plugins, notices)
    return checkpoint, notices


def _of_several_files(
    file: Checkpoint, plugins: Plugins, timeout: float | None, name: str | None, notices: list[Notice]
) -> Checkpoint | None:
    """The save that a file stands for, where a layout declares that a save is several files and recognises this one."""
    found = []
    limits = file.files.budget.limits
    for layout in plugins.layouts:
        names: tuple[str, ...] = ()
        if layout.save_files and name in (None, layout.name):
            folder, own = os.path.split(file.path)
            names = files_of_save(own, layout.save_files, LocalStorage(folder or ".", limits).files())
        if not names:
            continue
        checkpoint = Checkpoint(FilesOfSave(file.path, limits, names), limits, PlainFiles())
        match = _asked(layout, checkpoint, plugins, timeout, notices)
        if match is None and name == layout.name:
            match = Match(0, ("the name you gave",))
        take_best(checkpoint, [(match, layout)])
        if checkpoint.match is not None:
            found.append((checkpoint.match.score, checkpoint))
    return max(found, key=lambda f: f[0])[1] if found else None


def checkpoint_at(path: str | os.PathLike[str], layouts: Iterable[Layout] = ()) -> Checkpoint:
    """A checkpoint on a local path, of the layout that fits best; never raises for a bad path."""
    checkpoint = Checkpoint(LocalStorage(path), layout=PlainFiles())
    if checkpoint.files.root.kind is RootKind.DIRECTORY:
        take_best(checkpoint, [(layout.recognise(checkpoint), layout) for layout in layouts])
    return checkpoint


def take_best(checkpoint: Checkpoint, matches: Iterable[tuple[Match | None, Layout]]) -> tuple[Layout, ...]:
    """Take the layout with the highest score; of equals, which are returned, the one whose name comes first."""
    found = [(match, layout) for match, layout in matches if match]
    if not found:
        return ()
    checkpoint.match, checkpoint.layout = best, _ = min(found, key=lambda m: (-m[0].score, m[1].name))
    equals = [layout for match, layout in found if match.score == best.score]
    return tuple(sorted(equals, key=lambda layout: layout.name))


def layout_summary(checkpoint: Checkpoint) -> LayoutSummary:
    """Which layout a checkpoint is read as, and why."""
    if checkpoint.files.root.kind is not RootKind.DIRECTORY:
        return LayoutSummary(name="none", title="no directory that can be listed")
    signs = checkpoint.match.signs if checkpoint.match else ()
    return LayoutSummary(name=checkpoint.layout.name, title=checkpoint.layout.title, signs=tuple(map(str, signs)))


def _asked(
    layout: Layout, checkpoint: Checkpoint, plugins: Plugins, timeout: float | None, notices: list[Notice]
) -> Match | None:
    try:
        return limited(timeout, partial(_recognised, layout, checkpoint))
    except BaseException as error:  # noqa: BLE001 - a plugin's fault must not cost the other layouts
        what = f"the layout {layout.name} of {plugins.layout_plugin(layout)} crashed"
        notices.append(_crashed(what, crash_of(error)))
        return None


def _recognised(layout: Layout, checkpoint: Checkpoint) -> Match | None:
    try:
        match: object = layout.recognise(checkpoint)
    except FactUnavailable:
        return None
    if match is not None and not isinstance(match, Match):
        raise TypeError(f"recognise returned {match!r}; it must return a Match or None")
    if match is not None and not (isinstance(match.score, int) and isinstance(match.signs, tuple | list)):
        raise TypeError(f"recognise returned {match!r}; its score must be a whole number, its signs a tuple of words")
    if match is not None and not _FAINTEST <= match.score <= _SUREST:
        raise ValueError(f"recognise returned a score of {match.score}; it must be {_FAINTEST} to {_SUREST}")
    return match


def _choose(
    checkpoint: Checkpoint,
    matches: list[tuple[Match | None, Layout]],
    name: str | None,
    plugins: Plugins,
    notices: list[Notice],
) -> None:
    """Take the layout of this name, which must be one that could be asked; without a name, the one that fits best."""
    if name is None:
        equals = take_best(checkpoint, matches)
        if len(equals) > 1:
            names = " and ".join(equal.name for equal in equals)
            message = f"the layouts {names} fit equally well, and the first was taken; --layout settles it"
            notices.append(Notice(severity=Severity.WARNING, message=message))
        return
    known = {each.name: each for each in (PlainFiles(), AnyFiles(), *plugins.layouts)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"there is no layout {name!r}{meant}; there are {', '.join(sorted(known))}")
    found = next((match for match, each in matches if each is known[name] and match), None)
    if name == ANY:
        checkpoint.layout, checkpoint.match = known[name], None
        return
    if found is None and not known[name].one_file and isinstance(checkpoint.files.storage, OneFile):
        raise UsageError(f"{checkpoint.path} is a file, and a checkpoint of the layout {name!r} is a directory")
    if found is None and name != PlainFiles.name:
        message = f"nothing here is a sign of the layout {name!r}, which was taken because you named it"
        notices.append(Notice(severity=Severity.WARNING, message=message))
    checkpoint.layout = known[name]
    checkpoint.match = Match(found.score if found else 0, (*(found.signs if found else ()), "the name you gave"))


def _crashed(what: str, crash: Crash) -> Notice:
    return Notice(severity=Severity.ERROR, message=f"{what}: {crash.type}: {crash.message}", fatal=True, crash=crash)

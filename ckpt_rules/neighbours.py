"""The other saves of a checkpoint's run, which lie beside it; each is opened where somebody asks for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_rules.conventions.saves import saves_after, saves_before
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import RootKind
from ckpt_rules.save_names import SaveNames, files_of_save
from ckpt_rules.storage import FilesOfSave, LocalStorage, OneFile, Storage

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_MOST = 200
"""Saves before this one, and as many after it, that are listed; those nearest to it."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """Names of the saves beside a checkpoint that differ from it in their numbers only, the nearest first.

    name: the checkpoint's own
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]


def siblings(checkpoint: Checkpoint) -> Siblings:
    """The saves of the same run, by their names; FactUnavailable where the checkpoint is not named like a save."""
    name = os.path.basename(os.path.realpath(checkpoint.path))
    names = SaveNames([checkpoint.layout])
    named = names.files if checkpoint.files.is_in_files else names.directories
    if not named([name]):
        raise FactUnavailable("it is not named like a save, so nothing beside it is known to be of its run")
    beside = checkpoint.listing.siblings
    meant = named(beside)
    return Siblings(name, tuple(saves_before(name, meant)[:_MOST]), tuple(saves_after(name, meant)[:_MOST]))


def sibling(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """A save of the same run, read by the same layout; FactUnavailable where that one does not recognise it."""
    path = os.path.join(os.path.dirname(os.path.realpath(checkpoint.path)), name)
    limits = checkpoint.files.budget.limits
    found = type(checkpoint)(_storage(checkpoint, path), limits)
    if found.files.root.kind is not RootKind.DIRECTORY:
        raise FactUnavailable(f"{name} can't be looked into")
    match = checkpoint.layout.recognise(found)
    if match is None:
        raise FactUnavailable(f"{name} is not of the layout {checkpoint.layout.name}")
    found.layout, found.match = checkpoint.layout, match
    return found


def _storage(checkpoint: Checkpoint, path: str) -> Storage:
    """The place of a save beside this one, which is a directory, a file, or several files as this one is."""
    limits = checkpoint.files.budget.limits
    if not checkpoint.files.is_in_files:
        return LocalStorage(path, limits)
    names = files_of_save(os.path.basename(path), checkpoint.layout.save_files, checkpoint.listing.siblings)
    return FilesOfSave(path, limits, names) if names else OneFile(path, limits)


def names_beside(checkpoint: Checkpoint, folder: str) -> tuple[str, ...]:
    """Names of files and directories in a directory beside this save; none where it can't be listed."""
    place = LocalStorage(
        os.path.join(os.path.dirname(os.path.realpath(checkpoint.path)), folder), checkpoint.files.budget.limits
    )
    return tuple(sorted({*place.directories(), *place.files()}))


def written_at(checkpoint: Checkpoint, name: str) -> int | None:
    """When a save beside this one, or this one itself, was last written, in nanoseconds since the epoch."""
    entry = checkpoint.files.stat_now(f"../{name}")
    return entry.mtime_ns or None if entry else None

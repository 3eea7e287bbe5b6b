"""The other saves of a checkpoint's run, which lie beside it; each is opened where somebody asks for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import RootKind, file_saves_among, saves_after, saves_among, saves_before
from ckpt_rules.storage import LocalStorage, OneFile

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
    named = file_saves_among([name]) if checkpoint.is_one_file else saves_among([name])
    if not named:
        raise FactUnavailable("it is not named like a save, so nothing beside it is known to be of its run")
    beside = checkpoint.listing.siblings
    meant = file_saves_among(beside) if checkpoint.is_one_file else saves_among(beside)
    return Siblings(name, tuple(saves_before(name, meant)[:_MOST]), tuple(saves_after(name, meant)[:_MOST]))


def sibling(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """A save of the same run, read by the same layout; FactUnavailable where that one does not recognise it."""
    path = os.path.join(os.path.dirname(os.path.realpath(checkpoint.path)), name)
    kind = OneFile if checkpoint.is_one_file else LocalStorage
    limits = checkpoint.budget.limits
    found = type(checkpoint)(kind(path, limits), limits)
    if found.root.kind is not RootKind.DIRECTORY:
        raise FactUnavailable(f"{name} can't be looked into")
    match = checkpoint.layout.recognise(found)
    if match is None:
        raise FactUnavailable(f"{name} is not of the layout {checkpoint.layout.name}")
    found.layout, found.match = checkpoint.layout, match
    return found


def written_at(checkpoint: Checkpoint, name: str) -> int | None:
    """When a save beside this one, or this one itself, was last written, in nanoseconds since the epoch."""
    entry = checkpoint.look_again(f"../{name}")
    return entry.mtime_ns or None if entry else None

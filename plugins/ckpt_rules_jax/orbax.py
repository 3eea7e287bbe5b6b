"""Orbax: a directory for each step, with an item in each of its directories, or one item by itself."""

from __future__ import annotations

import os

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Layout,
    Match,
    ModelConfig,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Weights,
    saves_among,
)

_STEP_MARKER, _ITEM_MARKER = "_CHECKPOINT_METADATA", "_METADATA"
_MANIFEST, _PARTS = "manifest.ocdbt", "ocdbt.process_"
_CERTAIN, _LIKELY = 92, 70
_BOTH = frozenset({"resume", "load"})


class Orbax(Layout):
    """`_CHECKPOINT_METADATA`, and for each item `_METADATA`, `manifest.ocdbt` and `d/`."""

    name = "orbax"
    title = "Orbax checkpoint"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By the marker of a step, or by what an item's directory holds."""
        listing = checkpoint.listing
        items = item_folders(checkpoint)
        if listing.get(_STEP_MARKER) is None and items and set(items) == set(saves_among(items)):
            return None  # steps of a run, each of a single item
        signs = [n for n in (_STEP_MARKER, _ITEM_MARKER, "commit_success.txt") if listing.get(n) is not None]
        signs += [f"{folder or '.'}/{_MANIFEST}" for folder in items[:2]]
        if not signs or signs == ["commit_success.txt"]:
            return None
        return Match(_CERTAIN if listing.get(_STEP_MARKER) or len(signs) > 1 else _LIKELY, tuple(signs))

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """The marker, which is written when all else is; and what each item can't be read without."""
        marker = "it is written when a save is finalised; without it Orbax takes the directory for an unfinished one"
        found = [Requirement((_STEP_MARKER, "commit_success.txt"), marker, commits=True, purposes=_BOTH)]
        for folder in item_folders(checkpoint):
            above = f"{folder}/" if folder else ""
            why = f"the item {folder or 'at the top'} can't be restored without it"
            found += [Requirement((f"{above}{name}",), why, purposes=_BOTH) for name in (_ITEM_MARKER, _MANIFEST)]
            found.append(Requirement((f"{above}d/*",), f"{why}: it holds the arrays", purposes=_BOTH))
        return tuple(found)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """In a format that is not looked into."""
        raise FactUnavailable("Orbax keeps arrays in a format that is not looked into")

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Orbax keeps none."""
        raise FactUnavailable("Orbax keeps no configuration")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The step is the directory's name."""
        name = os.path.basename(os.path.abspath(checkpoint.path))
        digits = name.rpartition("_")[2]
        return (Recorded("global_step", int(digits[:18]), ".", "the directory's name"),) if digits.isdecimal() else ()

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the name."""
        recorded = checkpoint.recorded
        if not recorded:
            raise FactUnavailable("the directory's name holds no step, and nothing else records it")
        step = int(str(recorded[0].value))
        return Progress(
            global_step=step,
            plan=ResumePlan(f"training continues after step {step:,}, by the directory's name", from_update=step),
        )


def item_folders(checkpoint: Checkpoint) -> list[str]:
    """Directories that hold arrays: those with a manifest, or with the parts of one that was never put together.

    The checkpoint itself may be one, else its directories are; what lies further down belongs to another checkpoint.
    """
    found = set()
    for entry in checkpoint.listing:
        top, _, rest = entry.path.rpartition("/")
        if "/" in top:
            continue
        if (rest == _MANIFEST and not top.rpartition("/")[2].startswith(_PARTS)) or rest.startswith(_PARTS):
            found.add(top)
    return sorted(found)

"""Whether anybody understood the training state: where nobody did, a run that found nothing wrong has not passed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import RootKind
from ckpt_rules.layout import ANY

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_ADVICE = (
    "name its layout with --layout NAME (`ckpt-rules plugins -v` lists them) or install a plugin that brings one; to judge the "
    "weights alone, verify with --ruleset inference; to judge the files alone, with --layout any"
)


def advice(checkpoint: Checkpoint) -> str:
    """What to do where the training state was not understood."""
    if not checkpoint.is_one_file:
        return _ADVICE
    return f"most checkpoints are directories: if this file is a part of one, verify '{os.path.dirname(checkpoint.path) or '.'}'; else {_ADVICE}"


def not_understood(checkpoint: Checkpoint, purpose: str) -> str | None:
    """Why it is unknown whether training can be resumed, though nothing wrong was found; None where it is known.

    purpose: what a pass is to mean; weights are loaded, and handed on, whatever the layout
    """
    if purpose != "resume" or checkpoint.layout.name == ANY or checkpoint.root.kind is not RootKind.DIRECTORY:
        return None
    if why := checkpoint.layout.nothing_to_resume(checkpoint):
        return why
    if checkpoint.match is None:
        what = "file" if checkpoint.is_one_file else "directory"
        return f"no layout recognises this {what}: only its {'bytes were' if what == 'file' else 'files were'} checked"
    if any(_is_there(checkpoint, part) for part in _PARTS):
        return None
    return (
        f"it looks like a {checkpoint.layout.title}, but neither an optimizer nor progress was found in it: only its files "
        "and weights were checked"
    )


def _is_there(checkpoint: Checkpoint, part: Callable[[Checkpoint], object]) -> bool:
    try:
        return bool(part(checkpoint))
    except FactUnavailable:
        return False


_PARTS: tuple[Callable[[Checkpoint], object], ...] = (
    lambda checkpoint: checkpoint.state.values,
    lambda checkpoint: checkpoint.optimizers,
    lambda checkpoint: checkpoint.recorded,
    lambda checkpoint: checkpoint.progress,
)
"""Any of them is a training state that its layout found."""

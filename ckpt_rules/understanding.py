"""Whether anybody understood the training state: where nobody did, a run that found nothing wrong has not passed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import RootKind
from ckpt_rules.known_facts import OPTIMIZERS, PROGRESS, RECORDED
from ckpt_rules.traits import ANY

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_ADVICE = (
    "name its layout with --layout NAME (`ckpt-rules plugins -v` lists them) or install a plugin that brings one; to judge the "
    "weights alone, verify with --ruleset inference; to judge the files alone, with --layout any"
)
_WHERE = "name the layout that knows where the trainer keeps its weights with --layout NAME, or install a plugin that brings one"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why it is unknown whether training can be resumed.

    reason: one sentence without a full stop
    advice: what to do, or None where a rule says so
    """

    reason: str
    advice: str | None = _ADVICE


def not_understood(checkpoint: Checkpoint, purpose: str) -> Unknown | None:
    """What keeps a run that found nothing wrong from being a pass; None where the training state was understood.

    purpose: what a pass is to mean; weights are loaded, and handed on, whatever the layout
    """
    if purpose != "resume" or checkpoint.layout.name == ANY or checkpoint.files.root.kind is not RootKind.DIRECTORY:
        return None
    if why := checkpoint.layout.nothing_to_resume(checkpoint):
        return Unknown(why, None)
    if checkpoint.match is None and checkpoint.files.is_one_file:
        folder = os.path.dirname(checkpoint.path) or "."
        advice = f"if this file is a part of a checkpoint, verify the directory '{folder}'; else {_ADVICE}"
        return Unknown("no layout recognises this file: only its bytes were checked", advice)
    if checkpoint.match is None:
        return Unknown("no layout recognises this directory: only its files were checked")
    if any(_is_there(checkpoint, part) for part in _PARTS):
        lost = checkpoint.layout.reads_weights and not _may_have_weights(checkpoint)
        return Unknown("no weights were found in it that can be read here", _WHERE) if lost else None
    return Unknown(
        f"it is read as {checkpoint.layout.title}, but neither an optimizer nor progress was found in it: only its files and "
        "weights were checked"
    )


def _may_have_weights(checkpoint: Checkpoint) -> bool:
    """Whether weights were found, or files that a rule has something to say about."""
    try:
        return checkpoint.weights is not None
    except FactUnavailable as absent:
        return absent.blocked


def _is_there(checkpoint: Checkpoint, part: Callable[[Checkpoint], object]) -> bool:
    try:
        return bool(part(checkpoint))
    except FactUnavailable:
        return False


def _values(checkpoint: Checkpoint) -> object:
    return checkpoint.state.values


_PARTS: tuple[Callable[[Checkpoint], object], ...] = (
    _values,
    lambda checkpoint: checkpoint[OPTIMIZERS],
    lambda checkpoint: checkpoint[RECORDED],
    lambda checkpoint: checkpoint[PROGRESS],
)
"""Any of them is a training state that its layout found."""

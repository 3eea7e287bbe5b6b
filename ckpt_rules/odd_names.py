"""Saves under names that promise no format: `checkpoint_20`, `model.isc`, `weights.pdparams`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Content, Entry
from ckpt_rules.readers.sniff import expected_format

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_OF_A_SAVE = re.compile(
    r"(?:.*[-_.])?(?:checkpoints?|ckpts?|chkpt|weights?|model|params|snapshots?|snap|epoch|iter(?:ation)?|step)[-_.=]?\d*(?:[-_.].*)?",
    re.IGNORECASE,
)
_OF_A_MARKER = re.compile(
    r"(?:.*[-_.])?(?:done|complete[d]?|success|finish(?:ed)?|lock|ok|ready|saved|commit(?:ted)?|flag|mark(?:er)?|keep|started|progress"
    r"|index|log|txt|json|ya?ml|md|csv|html?|xml)",
    re.IGNORECASE,
)
_HOLLOW = frozenset({Content.EMPTY, Content.LFS_POINTER, Content.HTML, Content.XML})
_NUMBER = re.compile(r"\d+")


def hollow_saves(checkpoint: Checkpoint) -> list[Entry]:
    """Files at the top that should be a save, or its weights, though no suffix says so, and are empty or a stand-in. A fact.

    Where weights were found, such a file is meant to be a save only if it is called like a torch file beside it.
    """
    found = [e for e in checkpoint.listing.files(top_only=True) if _is_hollow(checkpoint, e)]
    if not found:
        return []
    if checkpoint.files.is_one_file:
        return [e for e in found if not e.size or _is_meant(e.name)]
    torch = {e.path for e in checkpoint.files.of_format("torch") if expected_format(e.name) is None}
    alike = {_NUMBER.sub("#", path) for path in torch}
    alone = not _has_weights(checkpoint)
    return [e for e in found if _NUMBER.sub("#", e.name) in alike or (alone and _is_meant(e.name))]


def _is_hollow(checkpoint: Checkpoint, entry: Entry) -> bool:
    return expected_format(entry.name) is None and checkpoint.files.sniff(entry.path).content in _HOLLOW


def _is_meant(name: str) -> bool:
    return bool(_OF_A_SAVE.fullmatch(name)) and not _OF_A_MARKER.fullmatch(name)


def _has_weights(checkpoint: Checkpoint) -> bool:
    try:
        return bool(checkpoint.weights.files)
    except FactUnavailable as absent:
        return absent.blocked

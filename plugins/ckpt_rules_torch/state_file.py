"""Which file holds the training state, if any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, Entry, EntryKind, FactUnavailable, expected_format
from ckpt_rules_torch import names
from ckpt_rules_torch.shapes import first, is_number, is_optimizer, is_weights

_MOST_FILES = 16


@dataclass(frozen=True, slots=True)
class StateFile:
    """The file that holds the training state.

    path:     relative to the checkpoint
    by_name:  whether its name alone says so, whatever is in it
    """

    path: str
    by_name: bool


def find_state_file(checkpoint: Checkpoint) -> StateFile | None:
    """`training_state.pth` and its like by name; any other by what it holds, and only where there is no choice."""
    listing = checkpoint.listing
    named = next((n for n in names.STATE_FILES if _is_there(listing.get(n))), None)
    if named:
        return StateFile(named, by_name=True)
    usual = [n for n in names.ONE_FILES if _is_there(listing.get(n))]
    for name in usual:
        if _verdict(checkpoint, name):
            return StateFile(name, by_name=False)
    holders = _holders(checkpoint, usual)
    if len(holders) == 1:
        return StateFile(holders[0], by_name=False)
    damaged = next((n for n in usual if _verdict(checkpoint, n) is None), None)
    if damaged and not holders:
        return StateFile(damaged, by_name=True)
    return _json_state(checkpoint)


def has_several_states(checkpoint: Checkpoint) -> bool:
    """Whether several files hold a training state each, and no name says which of them a resume reads."""
    return len(_holders(checkpoint, [])) > 1


def _holders(checkpoint: Checkpoint, usual: list[str]) -> list[str]:
    """Files that hold a training state and are not called like one."""
    others = [e.path for e in _candidates(checkpoint) if e.path not in usual]
    return [p for p in others if _verdict(checkpoint, p)] if len(others) <= _MOST_FILES else []


def _is_there(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is not EntryKind.DIRECTORY


def _candidates(checkpoint: Checkpoint) -> list[Entry]:
    """Torch files at the top, by name or by content, that no convention calls a shard or a part of the state."""
    parts = {n for files in names.PART_FILES.values() for n in files}
    return [
        e
        for e in checkpoint.files.of_format("torch")
        if "/" not in e.path
        and (e.name.endswith((".pt", ".pth", ".pth.tar", ".ckpt")) or expected_format(e.name) is None)
        and e.name not in parts
        and not names.SHARD.fullmatch(e.name)
    ]


def _verdict(checkpoint: Checkpoint, path: str) -> bool | None:
    """Whether a file holds a training state; None where it can't be read."""
    try:
        value = checkpoint.files.contents(path)
    except FactUnavailable:
        return None
    apart = checkpoint.listing.first_file(names.PART_FILES["optimizer"]) is not None
    return isinstance(value, Mapping) and _holds_state(value, apart)


def _holds_state(value: Mapping[object, object], apart: bool) -> bool:
    """Whether a dictionary is a training state; `apart` where the optimizer lies in a file of its own."""
    if first(value, names.OPTIMIZER) or any(map(is_optimizer, value.values())):
        return True
    counted = any(is_number(value.get(n)) for n in (*names.EPOCH, *names.STEP, *names.GLOBAL_STEP))
    return counted and (apart or any(map(is_weights, value.values())))


def _json_state(checkpoint: Checkpoint) -> StateFile | None:
    for name in names.JSON_STATES:
        if checkpoint.listing.has_file(name):
            value = checkpoint.files.json(name).value
            keys = (*names.EPOCH, *names.STEP, *names.GLOBAL_STEP)
            if isinstance(value, Mapping) and any(is_number(value.get(k)) for k in keys):
                return StateFile(name, by_name=False)
    return None

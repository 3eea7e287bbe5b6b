"""What a script registered to be saved beside model and optimizer: `custom_checkpoint_N.pkl`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    FactUnavailable,
    SchedulerState,
    Severity,
    TensorInfo,
    is_count,
    plain,
    state_dicts,
)

_COUNTERS = ("epoch", "step", "global_step", "completed_steps", "completed_epochs")
_OF_TORCH = frozenset({"last_epoch", "base_lrs", "_step_count", "_last_lr", "_schedulers"})
_MOST_COUNTED = 1e15


def counts_in(checkpoint: Checkpoint, paths: Iterable[str]) -> list[str]:
    """The counters in registered objects, as they are written: what they count is the script's affair."""
    notes = []
    for path in paths:
        try:
            values = checkpoint.files.contents(path)
        except FactUnavailable:
            continue
        known = values if isinstance(values, Mapping) else {}
        said = [f"{name} {plain(known[name])}" for name in _COUNTERS if is_count(plain(known.get(name)))]
        if said:
            notes.append(f"{path} says {', '.join(said)}")
    return notes


def no_counts_in(checkpoint: Checkpoint, paths: Iterable[str]) -> Iterator[Contradiction]:
    """Registered objects that hold nothing, and counters in them that can't be one."""
    for path in paths:
        try:
            values = checkpoint.files.contents(path)
        except FactUnavailable:
            continue
        if values is None:
            yield Contradiction(
                path, "", f"{path} holds None instead of the state of a registered object", Severity.WARNING
            )
        known = values if isinstance(values, Mapping) else {}
        for name in (n for n in _COUNTERS if n in known):
            if not _may_count(plain(known[name]), whole="epoch" not in name):
                shown = repr(plain(known[name]))[:40]
                words = f"{name} in {path} is {shown}, which is not a count: the script decides what to do with it"
                yield Contradiction(path, name, words, Severity.WARNING)


def scheduler_in(checkpoint: Checkpoint, path: str, registered: Iterable[str]) -> SchedulerState:
    """A prepared scheduler; FactUnavailable, blocked, where its file holds what a registered object counts.

    Loaded into a scheduler of torch, a number called `step` takes the place of the method.
    """
    values = checkpoint.files.contents(path)
    if isinstance(values, Mapping) and "step" in values and not values.keys() & _OF_TORCH:
        for other in registered:
            if _keys(checkpoint, other) == values.keys():
                counted = ", ".join(sorted(map(str, values)))[:80]
                said = f"{path} holds what {other} does ({counted}), where the state_dict of a scheduler belongs"
                raise FactUnavailable(said, path=path, blocked=True)
    return state_dicts.scheduler(values, path, "", alone=True)


def _keys(checkpoint: Checkpoint, path: str) -> Iterable[object]:
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return ()
    return values.keys() if isinstance(values, Mapping) else ()


def _may_count(value: object, *, whole: bool) -> bool:
    """Whether a number may be a count; not `whole`: a part of an epoch may be one."""
    if isinstance(value, TensorInfo):
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST_COUNTED:
        return False
    return not whole or value == int(value)

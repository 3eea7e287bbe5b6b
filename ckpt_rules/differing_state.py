"""What two checkpoints say of their training, value by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_rules.comparison import ValueChange
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.training import plain

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_COUNTERS = (
    "epoch", "step", "total_batches", "complete", "global_step", "accumulation", "batches_done", "expected_updates",
    "planned_epochs", "planned_updates",
)  # fmt: skip
_MOST_NESTED = 8


def state_changes(both: tuple[Checkpoint, Checkpoint]) -> dict[str, tuple[ValueChange, ...]]:
    """Of each part of the training state, the values that are not the same in both; parts that are the same are left out."""
    found = {part: tuple(_changes(_told(tell, both[0]), _told(tell, both[1]))) for part, tell in _PARTS.items()}
    return {part: changes for part, changes in found.items() if changes}


def _told(tell: Callable[[Checkpoint], Mapping[str, object]], checkpoint: Checkpoint) -> dict[str, object]:
    try:
        return {"present": True} | dict(tell(checkpoint))
    except FactUnavailable:
        return {"present": False}


def _changes(one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[ValueChange]:
    if one["present"] != other["present"]:
        yield ValueChange(name="present", values=(one["present"], other["present"]))
        return
    for name in dict.fromkeys((*one, *other)):
        before, after = one.get(name), other.get(name)
        if before != after and not (before != before and after != after):  # noqa: PLR0124 - two that are not a number
            yield ValueChange(name=name, values=(before, after))


def _optimizers(checkpoint: Checkpoint) -> Mapping[str, object]:
    found: dict[str, object] = {}
    optimizers = checkpoint.optimizers
    for number, optimizer in enumerate(optimizers):
        lead = f"{number}." if len(optimizers) > 1 else ""
        found |= {
            f"{lead}kind": optimizer.kind,
            f"{lead}updates": optimizer.updates,
            f"{lead}parameters": sum(len(group.params) for group in optimizer.groups),
            f"{lead}states": len(optimizer.states),
        }
        for group in optimizer.groups:
            found |= _leaves(group.options, f"{lead}group {group.index}.")
    return found


def _scheduler(checkpoint: Checkpoint) -> Mapping[str, object]:
    return {"kind": checkpoint.scheduler.kind} | _leaves(checkpoint.scheduler.values)


def _scaler(checkpoint: Checkpoint) -> Mapping[str, object]:
    scaler = checkpoint.scaler
    return {"enabled": scaler.enabled, "scale": plain(scaler.scale), "growth_tracker": plain(scaler.growth_tracker)}


def _rng(checkpoint: Checkpoint) -> Mapping[str, object]:
    return {"sources": sorted(checkpoint.rng.sources)}


def _progress(checkpoint: Checkpoint) -> Mapping[str, object]:
    progress = checkpoint.progress
    resume = {"resume": progress.plan.sentence} if progress.plan else {}
    return {name: getattr(progress, name) for name in _COUNTERS} | resume


def _config(checkpoint: Checkpoint) -> Mapping[str, object]:
    return _leaves(checkpoint.config.values)


def _leaves(values: Mapping[str, object], lead: str = "", depth: int = 0) -> dict[str, object]:
    """The plain values in a dictionary by the keys that lead to them; tensors are compared elsewhere."""
    found: dict[str, object] = {}
    for key, stored in values.items():
        value = plain(stored)
        if isinstance(value, Mapping) and depth < _MOST_NESTED:
            found |= _leaves(value, f"{lead}{key}.", depth + 1)
        elif isinstance(value, list | tuple):
            found[f"{lead}{key}"] = [plain(v) for v in value]
        elif isinstance(value, bool | int | float | str) or stored is None:
            found[f"{lead}{key}"] = value
    return found


_PARTS: dict[str, Callable[[Checkpoint], Mapping[str, object]]] = {
    "optimizer": _optimizers,
    "scheduler": _scheduler,
    "scaler": _scaler,
    "rng": _rng,
    "progress": _progress,
    "config": _config,
}

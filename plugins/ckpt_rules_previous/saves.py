"""Two saves of one run: how they are called, and what was done between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ckpt_rules import Checkpoint, FactUnavailable, Progress

T = TypeVar("T")
_MOST_EPOCHS = 1e9
_NO_RATE = 1e-9
"""Learning rates below it leave float32 weights as they are."""


class Counter(NamedTuple):
    """A counter in both saves."""

    name: str
    before: float
    after: float


def called(previous: Checkpoint) -> str:
    """The earlier save in a message: the last part of its path."""
    return previous.path.rstrip("/").rpartition("/")[2] or previous.path


def maybe(ask: Callable[[], T]) -> T | None:
    """A fact, or None where it is not available."""
    try:
        return ask()
    except FactUnavailable:
        return None


def progress_counters(checkpoint: Checkpoint) -> list[Counter]:
    """The counters of progress that both saves give, the most certain first.

    Batches and epochs are only comparable where an epoch is as long in both: a resume with another batch size changes that.
    """
    one, other = maybe(lambda: checkpoint.previous.progress), maybe(lambda: checkpoint.progress)
    if one is None or other is None:
        return []
    epochs = _epoch(one), _epoch(other)
    if None in epochs:
        epochs = _written_epoch(checkpoint.previous), _written_epoch(checkpoint)
    found: list[tuple[str, float | None, float | None]] = [("global step", one.global_step, other.global_step)]
    if one.total_batches == other.total_batches and one.accumulation == other.accumulation:
        found += [
            ("number of optimizer updates", one.expected_updates, other.expected_updates),
            ("number of batches", one.batches_done, other.batches_done),
        ]
    found.append(("epoch", *epochs))
    found_in_both = [
        Counter(name, before, after) for name, before, after in found if before is not None and after is not None
    ]
    if one.total_batches and other.total_batches and one.total_batches != other.total_batches:
        # Of longer epochs, fewer are finished.
        return [c for c in found_in_both if c.name != "epoch" or c.after >= c.before]
    return found_in_both


def _epoch(progress: Progress) -> float | None:
    return progress.epoch


def _written_epoch(checkpoint: Checkpoint) -> float | None:
    """What lies under `epoch` in the training state; a fraction where the trainer writes one."""
    state = maybe(lambda: checkpoint.state)
    value = state.values.get("epoch") if state else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < _MOST_EPOCHS else None  # type: ignore[operator, return-value]


def updates(checkpoint: Checkpoint) -> int | None:
    """Updates that the optimizer has counted; of several optimizers, the most."""
    counted = [o.updates for o in maybe(lambda: checkpoint.optimizers) or () if o.updates is not None]
    return max(counted, default=None)


def steps_between(checkpoint: Checkpoint) -> int:
    """Updates, or steps where nobody counts updates, that were made between the saves.

    FactUnavailable where none were made, or no counter tells.
    """
    before, after = updates(checkpoint.previous), updates(checkpoint)
    counted = [Counter("optimizer", before, after)] if before is not None and after is not None else []
    steps = [c for c in counted + progress_counters(checkpoint) if c.name != "epoch"]
    if not steps:
        raise FactUnavailable("no counter says whether training continued between the two saves")
    # An optimizer that is that of the save before has counted nothing, whatever was trained since.
    made = int(max(c.after - c.before for c in steps[:2]))
    if made <= 0:
        raise FactUnavailable("no step was made between the two saves")
    return made


def had_rate(checkpoint: Checkpoint, steps: int) -> bool:
    """False where the learning rate may have been zero at all of the steps."""
    before, after = rates(checkpoint.previous), rates(checkpoint)
    if max(before, default=0.0) > _NO_RATE:
        return True
    return steps > 1 and (not before or max(after, default=0.0) > _NO_RATE)


def rates(checkpoint: Checkpoint) -> list[float]:
    """The learning rates that the optimizers will use next; none where they are not known."""
    stored = [rate for o in maybe(lambda: checkpoint.optimizers) or () for rate in o.lrs]
    return [float(rate) for rate in stored if isinstance(rate, int | float) and rate >= 0]


def base_rates(checkpoint: Checkpoint) -> list[float]:
    """The learning rates that the scheduler started from; none where they are not known."""
    scheduler = maybe(lambda: checkpoint.scheduler)
    stored = scheduler.base_lrs if scheduler else ()
    return [float(rate) for rate in stored if isinstance(rate, int | float) and rate >= 0]


def listed(names: list[str], most: int = 5) -> str:
    """`a, b and 7 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

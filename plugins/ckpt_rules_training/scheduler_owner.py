"""Which optimizer a scheduler belongs to, where a checkpoint holds several of either: no file says it, but the rates do."""

from __future__ import annotations

import math

from ckpt_rules import Checkpoint, OptimizerState, SchedulerState, plain
from ckpt_rules_training.maybe import maybe

PLATEAU = "ReduceLROnPlateau"
_ABSURD = 1e300
_SAME = 1e-6


def number(value: object) -> float | None:
    """A finite number; others are for optimizer/bad-hyperparameter to report."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ABSURD:
        return None
    return float(value)


def differ(scheduled: float, lr: float, tolerance: float) -> bool:
    """Whether a rate is another; one of zero or below is for optimizer/bad-hyperparameter to report."""
    return lr > 0 and not math.isclose(scheduled, lr, rel_tol=tolerance)


def owner(checkpoint: Checkpoint, scheduler: SchedulerState, tolerance: float = _SAME) -> OptimizerState | None:
    """The optimizer of the only scheduler; of several, the first whose rates are this one's."""
    if len(checkpoint.schedulers) == 1:
        only = maybe(lambda: checkpoint.optimizer)
        if only is not None or len(checkpoint.optimizers) == 1:
            return only or checkpoint.optimizers[0]
    return next((o for o in checkpoint.optimizers if _fits(scheduler, o, tolerance)), None)


def disagreeing(checkpoint: Checkpoint, scheduler: SchedulerState, tolerance: float) -> OptimizerState | None:
    """The optimizer that this scheduler must belong to, for no other is left, though its rates are not the scheduler's.

    None where one has its rates, and where several schedulers may share an optimizer.
    """
    optimizers, schedulers = checkpoint.optimizers, checkpoint.schedulers
    if len(schedulers) == 1 and (only := owner(checkpoint, scheduler, tolerance)) is not None:
        return only
    if len(schedulers) > len(optimizers) or any(_fits(scheduler, o, tolerance) for o in optimizers):
        return None
    left = [o for o in optimizers if not any(_fits(s, o, tolerance) for s in schedulers)]
    alike = [o for o in left if len(o.groups) == len(scheduler.last_lr)] or left
    place = schedulers.index(scheduler)
    return optimizers[place] if optimizers[place] in alike else next(iter(alike), None)


def strange_rates(
    scheduler: SchedulerState, optimizer: OptimizerState, tolerance: float
) -> list[tuple[int, float, float]]:
    """Rates that the scheduler has set for no group, where the optimizer's own groups are not known.

    Each as the group's index, the rate, and the scheduler's nearest.
    """
    scheduled = [a for a in map(number, scheduler.last_lr) if a is not None]
    found = []
    for index, lr in enumerate(map(number, optimizer.lrs)):
        if lr is not None and scheduled and all(differ(a, lr, tolerance) for a in scheduled):
            distances = [abs(a - lr) for a in scheduled]
            found.append((index, lr, scheduled[distances.index(min(distances))]))
    return found


def _fits(scheduler: SchedulerState, optimizer: OptimizerState, tolerance: float) -> bool:
    if not optimizer.grouped:
        return not strange_rates(scheduler, optimizer, tolerance)
    if len(scheduler.last_lr) != len(optimizer.groups):
        return False
    pairs = zip(map(number, scheduler.last_lr), map(number, optimizer.lrs), strict=True)
    return all(a is not None and b is not None and math.isclose(a, b, rel_tol=tolerance) for a, b in pairs)

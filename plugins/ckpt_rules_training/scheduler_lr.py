"""scheduler/lr-mismatch and scheduler/exhausted: the learning rate that training will go on with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    OptimizerState,
    Place,
    Problem,
    Rule,
    SchedulerState,
    Severity,
    plain,
)
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.words import count, inside

_ABSURD = 1e300
_RESTARTING = frozenset({"CosineAnnealingWarmRestarts", "CyclicLR"})


class LrMismatch(Rule):
    """The scheduler and the optimizer disagree about the learning rate.

    ## What it checks
    The rates that the scheduler set last (`_last_lr`) against the rate of each parameter group, with a relative
    tolerance; and that there are as many. ReduceLROnPlateau is left alone, and so are
    schedulers with a separate warm-up: others change the rate beside them.

    ## Why it matters
    Some schedulers compute the next rate from the optimizer's, others from their own base rates: after a resume the
    learning rate jumps to another curve. It comes from states saved at different moments, or from a rate that was set by
    hand after loading.

    ## How to repair
    Set each group's `lr` to the scheduler's, or build the scheduler anew and step it to where training stands.
    """

    id = "scheduler/lr-mismatch"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: float = Field(default=1e-6, ge=0, description="Relative difference that passes without a word.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each group, or one where the numbers of groups differ."""
        scheduler, optimizer = checkpoint.scheduler, checkpoint.optimizer
        if scheduler.kind == "ReduceLROnPlateau" or not scheduler.last_lr:
            raise FactUnavailable(f"the scheduler ({scheduler.kind}) does not record the learning rate it set last")
        if _warms_up_beside(checkpoint):
            raise FactUnavailable("a warm-up of its own changes the learning rate beside the scheduler")
        if len(scheduler.last_lr) != len(optimizer.groups):
            yield _numbers_differ(scheduler, optimizer)
            return
        # A rate of zero or below is for optimizer/bad-hyperparameter to report.
        for index, (scheduled, lr) in enumerate(zip(scheduler.last_lr, optimizer.lrs, strict=True)):
            a, b = _number(scheduled), _number(lr)
            if a is not None and b is not None and b > 0 and not math.isclose(a, b, rel_tol=self.tolerance):
                yield _lrs_differ(scheduler, optimizer, index, a, b)


def _warms_up_beside(checkpoint: Checkpoint) -> bool:
    """Whether the state keeps another scheduler that dampens what the first one sets."""
    values = maybe(lambda: checkpoint.state.values) or {}
    return any(isinstance(v, Mapping) and "warmup" in str(k).lower() for k, v in values.items())


def _number(value: object) -> float | None:
    """A finite number; others are for optimizer/bad-hyperparameter to report."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ABSURD:
        return None
    return float(value)


def _numbers_differ(scheduler: SchedulerState, optimizer: OptimizerState) -> Problem:
    rates, groups = len(scheduler.last_lr), len(optimizer.groups)
    return Problem(
        message=f"the scheduler sets {count(rates, 'learning rate')}, the optimizer has {count(groups, 'parameter group')}",
        place=Place(path=scheduler.path, key=inside(scheduler.key, "_last_lr")),
        help="scheduler and optimizer were not built for each other: take both from the same save",
        data={"rates": rates, "groups": groups},
    )


def _lrs_differ(scheduler: SchedulerState, optimizer: OptimizerState, index: int, a: float, b: float) -> Problem:
    where = f" in {scheduler.path}" if scheduler.path != optimizer.path else ""
    return Problem(
        message=f"the scheduler{where} set the learning rate of parameter group {index} to {a:g}, the optimizer has {b:g}",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"param_groups[{index}].lr")),
        help="take scheduler and optimizer from the same save, or step a new scheduler to where training stands",
        data={
            "group": index,
            "scheduler": a,
            "optimizer": b,
            "scheduler_key": inside(scheduler.key, f"_last_lr[{index}]"),
        },
    )


class Exhausted(Rule):
    """The learning rate has become so small that training on would change nothing.

    ## What it checks
    The learning rate of every parameter group against the rate that its schedule started from (`base_lrs`, or the
    optimizer's `initial_lr`). The rule speaks when all groups are below the given ratio, once a step was made. Schedules that
    restart are left alone, and so is a checkpoint whose planned end is reached: `progress/finished` says that.

    ## Why it matters
    After the scheduler's state is loaded, or it is stepped forward to the recorded update, the schedule may have run out:
    a cosine past its `T_max`, a linear decay at zero. Training then runs at full cost and learns nothing.

    ## How to repair
    Plan the schedule for the whole of the training that is left: build a new scheduler with more steps, or with a minimum
    learning rate above zero.
    """

    id = "scheduler/exhausted"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    ratio: float = Field(
        default=1e-6, ge=0, lt=1, description="Share of the first learning rate below which it is spent."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        scheduler, optimizer = checkpoint.scheduler, checkpoint.optimizer
        steps = _number(scheduler.last_epoch)
        if scheduler.kind in _RESTARTING or steps is None or steps <= 0 or _is_finished(checkpoint):
            return
        pairs = [(_number(lr), _base(scheduler, optimizer, i)) for i, lr in enumerate(optimizer.lrs)]
        known = [(lr, base) for lr, base in pairs if lr is not None and base]
        if known and all(lr <= self.ratio * base for lr, base in known):
            lr, base = max(known)
            yield Problem(
                message=f"the learning rate is {lr:g} after {count(int(steps), 'step')} of the scheduler, "
                f"{_share(lr, base)} it started from",
                place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups[0].lr")),
                help="build a new scheduler that reaches as far as training shall, or one with a higher minimum",
                data={"lr": lr, "base_lr": base, "steps": int(steps)},
            )


def _base(scheduler: SchedulerState, optimizer: OptimizerState, index: int) -> float | None:
    bases = scheduler.base_lrs
    value = bases[index] if index < len(bases) else optimizer.groups[index].options.get("initial_lr")
    return _number(value)


def _share(lr: float, base: float) -> str:
    return f"{lr / base:.1g} times the {base:g}" if lr else f"nothing of the {base:g}"


def _is_finished(checkpoint: Checkpoint) -> bool:
    return bool(maybe(lambda: checkpoint.progress.finished))

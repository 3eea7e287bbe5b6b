"""scheduler/lr-mismatch and scheduler/exhausted: the learning rate that training will continue with."""

from __future__ import annotations

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
)
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.scheduler_owner import PLATEAU, differ, disagreeing, number, owner, strange_rates
from ckpt_rules_training.scheduler_parts import is_last, part_rates
from ckpt_rules_training.words import count, inside

_RESTARTING = frozenset({"CosineAnnealingWarmRestarts", "CyclicLR"})


class LrMismatch(Rule):
    """The scheduler and the optimizer disagree about the learning rate.

    ## What it checks
    The rates that the scheduler set last (`_last_lr`) against the rate of each parameter group, with a relative
    tolerance; and that there are as many. ReduceLROnPlateau and schedulers with a separate warm-up are not checked,
    because something else also changes the rate. With several schedulers and optimizers, whose pairing is not saved, a
    scheduler is reported if no optimizer has its rates and some optimizer has the rates of no scheduler. In a sequence
    or chain, the active part must have set the same rates.

    ## Why it matters
    Some schedulers compute the next rate from the optimizer's, others from their own base rates: after a resume the
    learning rate jumps to another curve. The usual causes are states saved at different steps, or a rate that was set
    by hand after loading.

    ## How to repair
    Set each group's `lr` to the scheduler's, or rebuild the scheduler and step it forward to the current training step.
    """

    id = "scheduler/lr-mismatch"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: float = Field(default=1e-6, ge=0, description="Relative difference that is not reported.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each group, or one where the numbers of groups differ."""
        known = [s for s in checkpoint.schedulers if s.kind != PLATEAU and s.last_lr]
        if not known:
            kind = checkpoint.schedulers[0].kind if checkpoint.schedulers else "none"
            raise FactUnavailable(f"the scheduler ({kind}) does not record the last learning rate it set")
        if _warms_up_beside(checkpoint):
            raise FactUnavailable("a separate warm-up changes the learning rate in addition to the scheduler")
        for scheduler in known:
            faults = list(part_rates(scheduler))
            yield from faults
            optimizer = None if faults else disagreeing(checkpoint, scheduler, self.tolerance)
            if optimizer is not None:
                yield from self._between(scheduler, optimizer)

    def _between(self, scheduler: SchedulerState, optimizer: OptimizerState) -> Iterator[Problem]:
        if not optimizer.grouped:
            strange = strange_rates(scheduler, optimizer, self.tolerance)
            for index, rate, nearest in strange:
                yield _lrs_differ(scheduler, optimizer, index, nearest, rate)
            if not strange:
                yield from _unused_rates(scheduler, optimizer, self.tolerance)
            return
        if len(scheduler.last_lr) != len(optimizer.groups):
            yield _numbers_differ(scheduler, optimizer)
            return
        for index, (scheduled, lr) in enumerate(zip(scheduler.last_lr, optimizer.lrs, strict=True)):
            a, b = number(scheduled), number(lr)
            if a is not None and b is not None and differ(a, b, self.tolerance):
                yield _lrs_differ(scheduler, optimizer, index, a, b)


def _unused_rates(scheduler: SchedulerState, optimizer: OptimizerState, tolerance: float) -> Iterator[Problem]:
    """Rates that no group has, of an optimizer whose own groups are not known."""
    rates = [lr for lr in map(number, optimizer.lrs) if lr is not None]
    for index, rate in enumerate(map(number, scheduler.last_lr)):
        if rate is not None and rates and all(differ(rate, lr, tolerance) for lr in rates):
            yield Problem(
                message=f"the scheduler set the learning rate of parameter group {index} to {rate:g}, but no "
                "parameter of the optimizer has it: the nearest is"
                f" {min(rates, key=lambda lr: abs(lr - rate)):g}",
                place=Place(path=scheduler.path, key=inside(scheduler.key, f"_last_lr[{index}]")),
                help="take scheduler and optimizer from the same save, or step a new scheduler forward to the "
                "current training step",
                data={"group": index, "scheduler": rate},
            )


def _warms_up_beside(checkpoint: Checkpoint) -> bool:
    """Whether the state keeps another scheduler that dampens what the first one sets."""
    values = maybe(lambda: checkpoint.state.values) or {}
    return any(isinstance(v, Mapping) and "warmup" in str(k).lower() for k, v in values.items())


def _numbers_differ(scheduler: SchedulerState, optimizer: OptimizerState) -> Problem:
    rates, groups = len(scheduler.last_lr), len(optimizer.groups)
    return Problem(
        message=f"the scheduler sets {count(rates, 'learning rate')}, but the optimizer has "
        f"{count(groups, 'parameter group')}",
        place=Place(path=scheduler.path, key=inside(scheduler.key, "_last_lr")),
        help="scheduler and optimizer were not built for each other: take both from the same save",
        data={"rates": rates, "groups": groups},
    )


def _lrs_differ(scheduler: SchedulerState, optimizer: OptimizerState, index: int, a: float, b: float) -> Problem:
    where = f" in {scheduler.path}" if scheduler.path != optimizer.path else ""
    return Problem(
        message=f"the scheduler{where} set the learning rate of parameter group {index} to {a:g}, but the optimizer "
        f"has {b:g}",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"param_groups[{index}].lr")),
        help="take scheduler and optimizer from the same save, or step a new scheduler forward to the current "
        "training step",
        data={
            "group": index,
            "scheduler": a,
            "optimizer": b,
            "scheduler_key": inside(scheduler.key, f"_last_lr[{index}]"),
        },
    )


class Exhausted(Rule):
    """The learning rate has become so small that further training would change nothing.

    ## What it checks
    The learning rate of every parameter group against the rate that its schedule started from (`base_lrs`, or the
    optimizer's `initial_lr`). It is reported if all groups are below the given ratio after at least one step. Schedules
    that restart, sequences with parts still to come, and checkpoints that have reached their planned end (see
    `progress/finished`) are not checked.

    ## Why it matters
    After the scheduler's state is loaded, or it is stepped forward to the recorded update, the schedule may have run
    out: a cosine past its `T_max`, a linear decay at zero. Training then runs at full cost and learns nothing.

    ## How to repair
    Plan the schedule for all of the remaining training: build a new scheduler with more steps, or with a minimum
    learning rate above zero.
    """

    id = "scheduler/exhausted"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    ratio: float = Field(
        default=1e-6,
        ge=0,
        lt=1,
        description="The learning rate counts as used up below this share of the first learning rate.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each scheduler."""
        if not _is_finished(checkpoint):
            for scheduler in checkpoint.schedulers:
                optimizer = owner(checkpoint, scheduler)
                if optimizer is not None:
                    yield from self._of(scheduler, optimizer)

    def _of(self, scheduler: SchedulerState, optimizer: OptimizerState) -> Iterator[Problem]:
        steps = number(scheduler.last_epoch)
        if _goes_up_again(scheduler) or steps is None or steps <= 0:
            return
        pairs = [(number(lr), _base(scheduler, optimizer, i)) for i, lr in enumerate(optimizer.lrs)]
        known = [(lr, base) for lr, base in pairs if lr is not None and base]
        if known and all(lr <= self.ratio * base for lr, base in known):
            lr, base = max(known)
            yield Problem(
                message=f"the learning rate is {lr:g} after {count(int(steps), 'step')} of the scheduler, "
                f"{_share(lr, base)} it started from",
                place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups[0].lr")),
                help="build a new scheduler that covers all of the remaining training, or one with a higher minimum",
                data={"lr": lr, "base_lr": base, "steps": int(steps)},
            )


def _goes_up_again(scheduler: SchedulerState) -> bool:
    """Whether it restarts by itself, or has a part that does or is still to come."""
    return scheduler.kind in _RESTARTING or not is_last(scheduler) or any(map(_goes_up_again, scheduler.parts))


def _base(scheduler: SchedulerState, optimizer: OptimizerState, index: int) -> float | None:
    bases = scheduler.base_lrs
    value = bases[index] if index < len(bases) else optimizer.groups[index].options.get("initial_lr")
    return number(value)


def _share(lr: float, base: float) -> str:
    return f"{lr / base:.1g} times the {base:g}" if lr else f"nothing of the {base:g}"


def _is_finished(checkpoint: Checkpoint) -> bool:
    return bool(maybe(lambda: checkpoint.progress.finished))

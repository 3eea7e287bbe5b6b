"""scheduler/base-lr-mismatch: the rates that a schedule is computed from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, OptimizerState, Place, Problem, Rule, SchedulerState, Severity, TensorInfo, plain
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.scheduler_owner import PLATEAU, number, owner
from ckpt_rules_training.words import count, inside, shown

_OWN_BASES = frozenset({"CyclicLR", "OneCycleLR", PLATEAU})
_SAME = 1e-6


class BaseLrMismatch(Rule):
    """The scheduler's base learning rates do not match those of its optimizer.

    ## What it checks
    `base_lrs` of each scheduler: finite numbers, one for each rate that the scheduler sets (otherwise an error); and
    equal to the group's `initial_lr`, which torch writes together with it. A different rate, or the same rates in a
    different order, is a warning: some scripts set `base_lrs` by hand to continue a run with another rate. CyclicLR and
    OneCycleLR, whose base is their lower bound, are not checked.

    ## Why it matters
    Most schedules multiply these rates by a factor. With NaN the next update turns every weight into NaN; with too few,
    the scheduler fails or leaves the last groups without a schedule; with different rates, the learning rate jumps at
    the first step after the resume.

    ## How to repair
    Set `base_lrs` in the scheduler's state to the rates that the run began with, or rebuild the scheduler and step it
    forward to the current training step.
    """

    id = "scheduler/base-lr-mismatch"
    severity = Severity.ERROR
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each scheduler, or part of one."""
        sizes = {len(o.groups) for o in maybe(lambda: checkpoint.optimizers) or () if o.grouped}
        for scheduler in checkpoint.schedulers:
            if sizes and scheduler.last_lr and len(scheduler.last_lr) not in sizes:
                continue  # scheduler/lr-mismatch says so
            if isinstance(scheduler.values.get("base_lrs"), list | tuple) or scheduler.parts:
                found = list(_of(scheduler, owner(checkpoint, scheduler) if sizes else None))
                yield from found or _unlike_all(checkpoint, scheduler)


def _of(scheduler: SchedulerState, optimizer: OptimizerState | None) -> Iterator[Problem]:
    for part in scheduler.parts:
        yield from _of(part, optimizer)
    if "base_lrs" not in scheduler.values or scheduler.kind in _OWN_BASES:
        return
    bases = scheduler.base_lrs
    bad = next((i for i, value in enumerate(bases) if _is_bad(value)), None)
    if bad is not None:
        value = plain(bases[bad])
        said = f"base_lrs[{bad}] of the scheduler is {shown(value)}, expected a finite number"
        yield _problem(scheduler, f"base_lrs[{bad}]", said, Severity.ERROR, {"value": str(value)})
    elif scheduler.last_lr and len(bases) != len(scheduler.last_lr):
        said = (
            f"the scheduler keeps {count(len(bases), 'first learning rate')} (base_lrs), but has set "
            f"{count(len(scheduler.last_lr), 'rate')} (_last_lr)"
        )
        numbers = {"rates": len(bases), "groups": len(scheduler.last_lr)}
        yield _problem(scheduler, "base_lrs", said, Severity.ERROR, numbers)
    elif optimizer is not None and len(bases) == len(optimizer.groups):
        yield from _unlike_initial(scheduler, optimizer)


def _is_bad(value: object) -> bool:
    if isinstance(value, TensorInfo) and value.value is None:
        return False  # a tensor of one element that lies where headers don't show it
    value = plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value != value or abs(value) == math.inf  # noqa: PLR0124 - NaN; math.isnan can't take an integer of any size
    return True


def _unlike_initial(scheduler: SchedulerState, optimizer: OptimizerState) -> Iterator[Problem]:
    initial = [number(g.options.get("initial_lr")) for g in optimizer.groups]
    pairs = list(zip(map(number, scheduler.base_lrs), initial, strict=True))
    odd = next((i for i, (a, b) in enumerate(pairs) if a is not None and b is not None and not _same(a, b)), None)
    if odd is None:
        return
    base, first = pairs[odd]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    turned = len(known) > 1 and sorted(a for a, _ in known) == sorted(b for _, b in known)
    order = ": the same rates are in a different order" if turned else ""
    said = f"the scheduler's first learning rate of parameter group {odd} is {base:g}, but the optimizer's (initial_lr) is {first:g}{order}"
    yield _problem(
        scheduler, f"base_lrs[{odd}]", said, Severity.WARNING, {"group": odd, "scheduler": base, "optimizer": first}
    )


def _unlike_all(checkpoint: Checkpoint, scheduler: SchedulerState) -> Iterator[Problem]:
    """A first rate that no parameter began with, of an optimizer whose own groups are not known."""
    optimizer = maybe(lambda: checkpoint.optimizer)
    if optimizer is None or optimizer.grouped or scheduler.kind in _OWN_BASES or scheduler.parts:
        return
    initial = [n for g in optimizer.groups if (n := number(g.options.get("initial_lr"))) is not None]
    bases = [(i, n) for i, n in enumerate(map(number, scheduler.base_lrs)) if n is not None]
    odd = next(((i, base) for i, base in bases if initial and not any(_same(base, first) for first in initial)), None)
    strange = next((n for n in initial if bases and not any(_same(n, base) for _, base in bases)), None)
    if odd is None and strange is not None:
        said = f"a parameter of the optimizer began with the learning rate {strange:g} (initial_lr), but no group of the scheduler did (base_lrs)"
        yield _problem(scheduler, "base_lrs", said, Severity.WARNING, {"optimizer": strange})
    if odd is not None:
        said = f"the scheduler's first learning rate of parameter group {odd[0]} is {odd[1]:g}, but no parameter of the optimizer began with it (initial_lr)"
        yield _problem(scheduler, f"base_lrs[{odd[0]}]", said, Severity.WARNING, {"group": odd[0], "scheduler": odd[1]})


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_SAME)


def _problem(scheduler: SchedulerState, key: str, said: str, severity: Severity, data: Mapping[str, object]) -> Problem:
    return Problem(
        message=said,
        place=Place(path=scheduler.path, key=inside(scheduler.key, key)),
        severity=severity,
        help="set base_lrs to the rates that the run began with, or step a new scheduler forward to the current "
        "training step",
        data=data,
    )

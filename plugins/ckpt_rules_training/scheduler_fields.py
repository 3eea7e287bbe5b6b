"""scheduler/bad-field: what a schedule is computed from, by the classes of torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, SchedulerState, Severity, TensorInfo, is_almost, plain
from ckpt_rules_training.words import count, inside, shown

_COMMON = frozenset({
    "base_lrs", "last_epoch", "verbose", "_step_count", "_get_lr_called_within_step", "_last_lr", "_is_initial",
})  # fmt: skip
# By torch 2.13; "!" marks a number that is divided by.
_NUMBERS: dict[str, tuple[str, ...]] = {
    "CosineAnnealingLR": ("T_max!", "eta_min"),
    "CosineAnnealingWarmRestarts": ("T_0!", "T_i!", "T_mult", "T_cur", "eta_min"),
    "StepLR": ("step_size!", "gamma"),
    "MultiStepLR": ("gamma",),
    "ExponentialLR": ("gamma",),
    "ConstantLR": ("factor", "total_iters"),
    "LinearLR": ("start_factor", "end_factor", "total_iters"),
    "PolynomialLR": ("total_iters", "power"),
}
_OF_TORCH = frozenset({"_step_count", "_get_lr_called_within_step", "_is_initial", "base_lrs"})
_ASKING = frozenset({"LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR"})  # whether they are being built
_SINCE_LONG = frozenset({"base_lrs", "last_epoch", "_step_count", "_get_lr_called_within_step", "_last_lr"})
_DISTRIBUTED = ".metadata"
_COUNTS = frozenset({"T_max", "T_0", "T_i", "T_mult", "step_size", "total_iters"})
_SWITCHES = frozenset({"_get_lr_called_within_step", "_is_initial"})
_PLAIN = dict.fromkeys((*_COUNTS, "last_epoch", "_step_count"), "a number") | dict.fromkeys(_SWITCHES, "True or False")
_OTHERS = frozenset({"milestones"})
_LAMBDAS = "lr_lambdas"


class BadSchedulerField(Rule):
    """A field of the scheduler's state has a value from which no learning rate can be computed.

    ## What it checks
    Of torch's schedulers: `base_lrs` is a list, `lr_lambdas` of LambdaLR a list with None or a dictionary for each
    group, and every value that its class computes with (`T_max`, `eta_min`, `gamma`, `step_size`, …) is a finite
    number, and not 0 if it is a divisor; otherwise an error, as is a field that a distributed save lacks. Warnings are
    an `eta_min` below zero or above the first learning rates, a count below zero, an `_is_initial` that is true, a
    `_last_lr` that is missing or holds something other than finite numbers, and, if a library's trainer wrote it, a
    state that has only the fields that all schedulers share, for example because `lr_lambdas` was lost. Classes that
    add their own fields are not checked.

    ## Why it matters
    `load_state_dict` takes the saved fields as they are. The next step of the scheduler then fails with a TypeError, a
    KeyError or a division by zero; with NaN it makes every learning rate NaN, and the weights with it.

    ## How to repair
    Set the field to the value in the run's configuration, or rebuild the scheduler and step it forward to the current
    training step.
    """

    id = "scheduler/bad-field"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each field."""
        for scheduler in checkpoint.schedulers:
            yield from _of(scheduler)
            # A script may have a class that computes rates from constants and keeps nothing.
            if not checkpoint.layout.hand_written:
                yield from map(_without_lambdas, filter(_lost_lambdas, _flat(scheduler)))


def _flat(scheduler: SchedulerState) -> Iterator[SchedulerState]:
    for part in scheduler.parts:
        yield from _flat(part)
    yield scheduler


def _of(scheduler: SchedulerState) -> Iterator[Problem]:
    for part in scheduler.parts:
        yield from _of(part)
    values = scheduler.values
    bases = values.get("base_lrs", ())
    if not _is_list(bases):
        yield _bad(scheduler, "base_lrs", bases, "expected a list of learning rates")
    yield from _lambdas(scheduler)
    yield from _numbers(scheduler)
    yield from _last_rates(scheduler)
    started = values.get("_is_initial")
    if started and not isinstance(started, TensorInfo) and scheduler.kind in _ASKING:
        said = "which is only true while a scheduler is being built: its first step will not change the learning rate"
        yield _bad(scheduler, "_is_initial", started, said, Severity.WARNING)
    steps = values.get("_step_count", 0)
    if scheduler.kind != "unknown" and not isinstance(steps, int | float | TensorInfo):
        yield _bad(scheduler, "_step_count", steps, "expected a number: the next step fails when it adds 1 to it")
    yield from _tensors(scheduler)
    if not _lost_lambdas(scheduler) and (absent := _absent(scheduler)):
        yield _bad(scheduler, absent, None, "and a distributed load fails without it", said="is missing")


def _tensors(scheduler: SchedulerState) -> Iterator[Problem]:
    """Counts and flags that are tensors: a distributed load refuses them, elsewhere one number may stand for a count."""
    distributed = scheduler.path == _DISTRIBUTED
    for name, value in scheduler.values.items():
        if name not in _PLAIN or not isinstance(value, TensorInfo):
            continue
        if distributed or name in _SWITCHES or value.numel != 1:
            stops = ": a distributed load fails" if distributed else ""
            yield _bad(scheduler, name, value, f"expected {_PLAIN[name]}{stops}", said="is a tensor")


def _without_lambdas(scheduler: SchedulerState) -> Problem:
    return Problem(
        message="the scheduler's state has only the fields that all schedulers share, none of a specific class: if "
        "it is a LambdaLR, loading fails with KeyError:"
        f" '{_LAMBDAS}'",
        place=Place(path=scheduler.path, key=scheduler.key or None),
        severity=Severity.WARNING,
        help=_HELP,
        data={"fields": sorted(scheduler.values)},
    )


def _lost_lambdas(scheduler: SchedulerState) -> bool:
    """Whether nothing is left but what torch's base class keeps, and perhaps `lr_lambdas` under a name that is almost it."""
    names = scheduler.values.keys()
    own = {name for name in names - _COMMON if not is_almost(name, _LAMBDAS) and _LAMBDAS not in name}
    return scheduler.kind == "unknown" and not own and bool(names & _OF_TORCH)


def _absent(scheduler: SchedulerState) -> str | None:
    """A field of its class that a distributed save lacks, in which each is an entry of its own."""
    values = scheduler.values
    if scheduler.path != _DISTRIBUTED or not values.keys() & _OF_TORCH or scheduler.parts:
        return None
    classes = [{n.rstrip("!") for n in names} for names in _NUMBERS.values()]
    known = {name for fields in classes for name in fields}
    heads = {str(n).partition(".")[0] for n in values}  # of a dictionary, each value is an entry of its own
    own = {n for n in heads - _COMMON - _OTHERS if n in known or not any(is_almost(n, k) for k in known)}
    possible = [fields for fields in classes if own & fields]
    lacking = [sorted(fields - values.keys()) for fields in possible if own <= fields]
    if lacking and all(lacking):
        return min(lacking, key=len)[0]
    return next((name for name in sorted(_SINCE_LONG) if name not in values), None)


_HELP = "set it to the value in the run's configuration, or step a new scheduler forward to the current training step"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) and not isinstance(value, TensorInfo)


def _lambdas(scheduler: SchedulerState) -> Iterator[Problem]:
    value = scheduler.values.get(_LAMBDAS)
    if _LAMBDAS in scheduler.values and not _is_list(value):
        yield _bad(scheduler, _LAMBDAS, value, "expected a list with None or a dictionary for each parameter group")
    bases = scheduler.values.get("base_lrs")
    if _is_list(value) and _is_list(bases) and bases and len(value) > len(bases):  # type: ignore[arg-type]
        said = f"holds {len(value):,} entries for {count(len(bases), 'parameter group')}: loading fails with IndexError"  # type: ignore[arg-type]
        yield _bad(scheduler, _LAMBDAS, value, "expected one for each group", said=said)
    for index, part in enumerate(value if isinstance(value, list | tuple) and _is_list(value) else ()):
        if isinstance(part, str | int | float | TensorInfo) or (_is_list(part) and part):
            yield _bad(scheduler, f"{_LAMBDAS}[{index}]", part, "expected None or a dictionary")


def _numbers(scheduler: SchedulerState) -> Iterator[Problem]:
    names = {name.rstrip("!"): name.endswith("!") for name in _NUMBERS.get(scheduler.kind, ())}
    if not scheduler.values.keys() <= {*_COMMON, *_OTHERS, *names}:
        return  # a class of somebody else's, which may keep anything by these names
    for name, divides in names.items():
        if name not in scheduler.values:
            continue  # a load leaves it as the new scheduler has it
        value = scheduler.values[name]
        if isinstance(value, TensorInfo) and name in _PLAIN:
            continue  # `_tensors` tells of it
        if fault := _fault(value, divides=divides):
            yield _bad(scheduler, name, value, fault)
        elif said := _doubtful(scheduler, name, plain(value)):
            yield _bad(scheduler, name, value, said, Severity.WARNING)


def _doubtful(scheduler: SchedulerState, name: str, value: object) -> str | None:
    if not isinstance(value, int | float):
        return None
    if name in _COUNTS:
        return "but it counts steps" if value < 0 else None
    if name != "eta_min":
        return None
    first = [b for b in scheduler.base_lrs if isinstance(b, int | float) and not isinstance(b, bool)]
    if first and value > max(first):
        return (
            f"which is above every learning rate that the schedule began with: the rates rise to it from {max(first):g}"
        )
    return "so the learning rates become negative" if value < 0 else None


def _fault(value: object, *, divides: bool = False) -> str | None:
    if isinstance(value, TensorInfo):
        if value.value is None:  # of a single number, headers don't always show it
            return None if value.numel == 1 else "expected a number"
        value = value.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "expected a number"
    if value != value or abs(value) == math.inf:  # noqa: PLR0124 - NaN; math.isnan can't take an integer of any size
        return "expected a finite number"
    return "and the schedule divides by it" if divides and value == 0 else None


def _last_rates(scheduler: SchedulerState) -> Iterator[Problem]:
    values = scheduler.values
    if scheduler.kind == "unknown" or not values.keys() >= {"base_lrs", "_step_count"}:
        return
    rates = values.get("_last_lr")
    if "_last_lr" not in values:
        yield _bad(scheduler, "_last_lr", None, "although every step sets it", Severity.WARNING, said="is missing")
    elif not isinstance(rates, list | tuple) or not _is_list(rates):
        yield _bad(scheduler, "_last_lr", rates, "expected a list of learning rates", Severity.WARNING)
    elif not rates and values.get("base_lrs"):
        yield _bad(scheduler, "_last_lr", rates, "expected one learning rate for each group", Severity.WARNING)
    else:
        for index, rate in enumerate(rates):
            if fault := _fault(rate):
                yield _bad(scheduler, f"_last_lr[{index}]", rate, fault, Severity.WARNING)


def _bad(
    scheduler: SchedulerState, name: str, value: object, fault: str, severity: Severity | None = None, said: str = ""
) -> Problem:
    known = plain(value) if plain(value) is not None else value
    return Problem(
        message=f"{name} of the scheduler ({scheduler.kind}) {said or f'is {shown(known)}'}, {fault}",
        place=Place(path=scheduler.path, key=inside(scheduler.key, name)),
        severity=severity,
        help=_HELP,
        data={"field": name, "value": shown(known)},
    )

"""What torch's own optimizers are told by True, False or None: `foreach`, `fused`, `maximize`, … of each parameter group."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from ckpt_rules import OptimizerState, ParamGroup, Severity, TensorInfo, conventions, is_almost, plain
from ckpt_rules_training.optimizer_groups import ABSENT, needed

_FLAGS = ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused", "nesterov", "centered")
_FIRST_RATE = "initial_lr"
_OF_ITS_CLASS = "decoupled_weight_decay"  # which Adam and AdamW set by themselves
_ADDED_SINCE = frozenset({*_FLAGS, _OF_ITS_CLASS, _FIRST_RATE})
_KNOWN = _ADDED_SINCE | {"lr", "betas", "eps", "weight_decay", "momentum", "dampening"}
_OF_TORCH = _KNOWN | {"alpha", "rho", "lr_decay", "momentum_decay", "lambd", "t0", "etas", "step_sizes"}
_EXCLUSIVE = (("fused", "foreach"), ("fused", "differentiable"))
_STRICT_WHERE_FUSED = ("amsgrad", "maximize", "nesterov")
_UNLIKE = ("maximize", "differentiable", "capturable")


class Fault(NamedTuple):
    """An option, its value, and what is wrong with it."""

    name: str
    value: object
    said: str
    severity: Severity = Severity.ERROR


def flag_faults(optimizer: OptimizerState, group: ParamGroup, *, scheduled: int) -> Iterator[Fault]:
    """scheduled: for how many groups the scheduler keeps first rates, which it took from `initial_lr`."""
    yield from _lost_of_distributed(optimizer, group)
    if not needed(group):
        return  # a class of somebody else's
    options = group.options
    for name in _FLAGS:
        if name in options and not _is_flag(options[name]):
            yield Fault(name, options[name], "expected True, False or None")
        elif (
            name in _STRICT_WHERE_FUSED
            and options.get("fused") is True
            and not isinstance(options.get(name, False), bool)
        ):
            yield Fault(name, options[name], "expected True or False, because fused is True")
    for one, other in _EXCLUSIVE:
        if options.get(one) is True and options.get(other) is True:
            yield Fault(other, True, f"and {one} is True too: torch does not allow both")
    alike = [g for g in optimizer.groups if g is not group and needed(g) == needed(group)]
    for name in _UNLIKE:
        if options.get(name) is True and any(plain(g.options.get(name)) is False for g in alike):
            yield Fault(name, True, "although it is False in other groups", Severity.WARNING)
    yield from _absent(optimizer, group, alike, scheduled)
    first = options.get(_FIRST_RATE, 0)
    if not _is_rate(first):
        yield Fault(_FIRST_RATE, first, "expected the learning rate that the schedule began with", Severity.WARNING)


def _lost_of_distributed(optimizer: OptimizerState, group: ParamGroup) -> Iterator[Fault]:
    """The one option that another group has and this lacks: a distributed load asks for it by name, in each of them."""
    if optimizer.path != conventions.distributed.METADATA:
        return
    own = group.options.keys()
    for name, value in group.options.items():
        others = [g.options[name] for g in optimizer.groups if g is not group and name in g.options]
        if isinstance(value, TensorInfo) and any(not isinstance(other, TensorInfo) for other in others):
            yield Fault(
                name,
                value,
                "although it is not a tensor in other groups: a distributed load expects the same kind of value in each group",
            )
    for other in optimizer.groups:
        lost, more = other.options.keys() - own, own - other.options.keys()
        name, renamed = next(iter(lost), ""), next(iter(more), "")
        slip = len(more) == 1 and name in _KNOWN and (is_almost(renamed, name) or name in renamed)
        if len(lost) == 1 and (not more or slip):
            # What a script gives one group, no load asks for in another; of what is needed, `absences` tells.
            if name in _OF_TORCH and name not in needed(other):
                yield Fault(name, ABSENT, "although other groups have it; a distributed load expects it in every group")
            return


def _absent(optimizer: OptimizerState, group: ParamGroup, alike: list[ParamGroup], scheduled: int) -> Iterator[Fault]:
    """What others have: a load sets flags to False, and the first rate is lost."""
    for name in sorted(_ADDED_SINCE - group.options.keys()):
        has = [plain(g.options[name]) for g in alike if name in g.options]
        if optimizer.path == conventions.distributed.METADATA:
            continue  # told already
        if name == _FIRST_RATE:
            if has and scheduled == len(optimizer.groups):
                yield Fault(name, ABSENT, "although other groups have it", Severity.WARNING)
        elif any(value is True for value in has) and name != _OF_ITS_CLASS:
            yield Fault(
                name, ABSENT, "so loading sets it to False, although it is True in other groups", Severity.WARNING
            )


def _is_rate(value: object) -> bool:
    if isinstance(value, TensorInfo) and value.value is None:
        return value.numel == 1  # of a single number, headers don't always show it
    known = plain(value)
    return isinstance(known, int | float) and not isinstance(known, bool) and abs(known) < math.inf


def _is_flag(value: object) -> bool:
    return value is None or isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))

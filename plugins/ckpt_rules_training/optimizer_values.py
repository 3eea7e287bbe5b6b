"""optimizer/bad-hyperparameter and optimizer/moment-dtype: what the optimizer computes with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from ckpt_rules import (
    DTYPE_BITS,
    FLOAT_DTYPES,
    HALF_DTYPES,
    Checkpoint,
    OptimizerState,
    ParamGroup,
    Place,
    Problem,
    Rule,
    Severity,
    TensorInfo,
    plain,
)
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.optimizer_flags import flag_faults
from ckpt_rules_training.optimizer_groups import ABSENT, absences
from ckpt_rules_training.words import count, inside, listed, shown

_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "sum"})
_TORCHS_OWN = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Options that the optimizers of torch have; Apex, DeepSpeed and fairseq keep float32 moments of half-precision weights by design."""
_INTEGERS = frozenset(d for d in DTYPE_BITS if d.startswith(("int", "uint")))
_ABSURD = 1e4
_MASTERS = ("master", "fp32")


class BadHyperparameter(Rule):
    """A parameter group has a hyper-parameter value that training can't use.

    ## What it checks
    Of every group: the learning rate, betas (0 up to, not including, 1), eps, weight decay and momentum must be finite
    numbers, not negative, and below 10,000. A learning rate of 0 is a warning, unless the scheduler has set it. What
    torch's own optimizers read at every update must be present and not None, because loading takes the saved groups as
    they are; so must every option that other groups of the same optimizer have. For them, betas must be two numbers,
    `foreach`, `fused`, `maximize` and the like True, False or None; `fused` excludes `foreach` and `differentiable`. It
    is a warning if `maximize` is set in one group only, or if an `initial_lr` is not a number or is missing in one
    group although the scheduler has its first rate.

    ## Why it matters
    Loading a `state_dict` overwrites the hyper-parameters that the optimizer was built with. NaN in one of them turns
    every weight into NaN at the first update; with a learning rate of 0 the group silently does not train.

    ## How to repair
    Set the value to the one in the run's configuration, in the file or in `optimizer.param_groups` after loading.
    """

    id = "optimizer/bad-hyperparameter"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each value."""
        scheduled = _scheduled(checkpoint)
        for optimizer, group in ((o, g) for o in checkpoint.optimizers for g in o.groups):
            for name, value, fault in (*_faults(group), *absences(optimizer, group)):
                yield _bad(optimizer, group, name, value, fault)
            for flag in flag_faults(optimizer, group, scheduled=_first_rates(checkpoint)):
                yield _bad(optimizer, group, flag.name, flag.value, flag.said, flag.severity)
            if _is_zero(group.options.get("lr")) and not _sets_zero(scheduled, group.index) and optimizer.updates != 0:
                yield _bad(optimizer, group, "lr", 0, "so its parameters do not train", Severity.WARNING)


def _first_rates(checkpoint: Checkpoint) -> int:
    return len(maybe(lambda: checkpoint.scheduler.base_lrs) or ())


def _scheduled(checkpoint: Checkpoint) -> tuple[object, ...]:
    return maybe(lambda: checkpoint.scheduler.last_lr) or ()


def _is_zero(value: object) -> bool:
    value = plain(value)
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0


def _sets_zero(scheduled: tuple[object, ...], index: int) -> bool:
    return index < len(scheduled) and _is_zero(scheduled[index])


def _faults(group: ParamGroup) -> Iterator[tuple[str, object, str]]:
    for name in ("lr", "eps", "weight_decay", "momentum"):
        held = group.options.get(name)
        if isinstance(held, TensorInfo) and held.numel != 1:
            yield name, held, "expected a number"
            continue
        value = plain(held)  # a tensor is a tuple as well, of dtype, shape, …
        for part in value if isinstance(value, list | tuple) else (value,):
            if fault := _fault(part, below=1 if name == "momentum" else math.inf):
                yield name, part, fault
    betas = group.options.get("betas")
    if isinstance(betas, TensorInfo) or (betas is not None and not isinstance(betas, list | tuple)):
        yield "betas", betas, "expected two numbers"
        return
    for index, beta in enumerate(betas or ()):
        if isinstance(beta, TensorInfo) and beta.numel != 1:
            yield f"betas[{index}]", beta, "expected a number"
        elif fault := _fault(beta, below=1):
            yield f"betas[{index}]", beta, fault


def _fault(value: object, below: float) -> str | None:
    """What is wrong with a number; None (Adafactor's lr) and tensors whose value is not known are let through."""
    known = plain(value)
    if known is None:
        return None
    if isinstance(known, bool) or not isinstance(known, int | float):
        return "which is not a number"
    if known != known or abs(known) == math.inf:  # noqa: PLR0124 - NaN; math.isnan can't take an integer of any size
        return "which is not finite"
    if known > _ABSURD:
        return "which is absurdly large"
    if known < 0:
        return "which is negative"
    return f"expected less than {below:g}" if known >= below else None


def _bad(
    optimizer: OptimizerState, group: ParamGroup, name: str, value: object, fault: str, severity: Severity | None = None
) -> Problem:
    known = value if plain(value) is None else plain(value)  # a tensor's number, where it is one
    said = "is missing" if value is ABSENT else f"is {shown(known)}"
    value = None if value is ABSENT else value
    return Problem(
        message=f"{name} of parameter group {group.index} {said}, {fault}",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"param_groups[{group.index}].{name}")),
        help="set it to the value in the run's configuration, in the file or after loading",
        severity=severity,
        data={"group": group.index, "name": name, "value": plain(value), "parameters": len(group.params)},
    )


class MomentDtype(Rule):
    """The optimizer's moments are kept in half precision, or no float32 copy of half-precision weights exists.

    ## What it checks
    The dtypes of the moments and of the weights. Half-precision moments with float32 weights are a warning, and so are
    integer moments if those of other parameters are floating-point. Half-precision weights without a float32 master
    copy are also a warning if one of torch's own optimizers, whose moments have the dtype of the trained parameters,
    has float32 moments: float32 weights were trained, and rounded when they were saved. Otherwise such weights are
    information only: pure bfloat16 training produces both in half precision, which is a valid choice.

    ## Why it matters
    bfloat16 keeps 8 bits of a number: a second moment with a decay of 0.999 can no longer change by less than 0.4 %,
    and small updates are lost when they are added to weights. Moments that were cast when they were saved make a
    resumed run differ from the one that was interrupted.

    ## How to repair
    Save the optimizer's `state_dict` without casting it. If mixed precision keeps float32 master weights, save those
    too.
    """

    id = "optimizer/moment-dtype"
    severity = Severity.WARNING
    tags = frozenset({"resume", "numerics"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each optimizer."""
        for optimizer in checkpoint.optimizers:
            yield from _half_precision(checkpoint, optimizer)
            yield from _whole_numbers(optimizer)


def _dtypes(checkpoint: Checkpoint) -> Counter[str]:
    return Counter(t.dtype for t in checkpoint.weights.tensors.values() if "float" in t.dtype)


def _half_precision(checkpoint: Checkpoint, optimizer: OptimizerState) -> Iterator[Problem]:
    moments = [(k, n, t.dtype) for k, s in optimizer.states.items() for n, t in s.tensors.items() if n in _MOMENTS]
    weights = checkpoint.fact(_dtypes)
    half = [m for m in moments if m[2] in HALF_DTYPES]
    usual = weights.most_common(1)[0][0] if weights else None
    if half and usual == "float32":
        key, name, _ = half[0]
        yield Problem(
            message=f"{count(len(half), 'moment')} of {len(moments):,} are {listed(sorted({m[2] for m in half}))}, "
            "although the weights are float32",
            place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{key}].{name}")),
            help="save the optimizer's state_dict without casting it",
            data={"half": len(half), "moments": len(moments)},
        )
    elif usual in HALF_DTYPES and not _has_masters(checkpoint, optimizer) and _are_rounded(checkpoint, optimizer):
        path = checkpoint.weights.files[0].path
        yield Problem(
            message=f"the weights are {usual} but the optimizer's moments are float32: the float32 weights that were "
            "trained are not in the checkpoint, so a resume continues from rounded ones",
            place=Place(path=path),
            help="save the float32 weights (or the master copies) with the optimizer; round them only for inference",
            data={"dtype": usual, "moments": "float32"},
        )
    elif usual in HALF_DTYPES and not _has_masters(checkpoint, optimizer):
        yield Problem(
            message=f"the weights are {usual}, and the checkpoint has no float32 master copy of them",
            place=Place(path=checkpoint.weights.files[0].path),
            severity=Severity.INFO,
            help="nothing to do for pure half-precision training; for mixed precision, save the float32 weights",
            data={"dtype": usual},
        )


def _are_rounded(checkpoint: Checkpoint, optimizer: OptimizerState) -> bool:
    """Whether float32 weights were trained, by moments that take the dtype of what is trained, and none of them is there."""
    if not all(_TORCHS_OWN & group.options.keys() for group in optimizer.groups):
        return False
    moments = [t for s in optimizer.states.values() for n, t in s.tensors.items() if n in _MOMENTS and len(t.shape) > 0]
    weights = [(f, t) for f, _, t in checkpoint.weights.items() if "float" in t.dtype]
    half = {t.shape for _, t in weights if t.dtype in HALF_DTYPES}
    wide = {t.shape for _, t in weights if t.dtype not in HALF_DTYPES}
    averaged = any("ema" in f.key.lower() for f, _ in weights)  # which is rounded on purpose, and not what is trained
    fits = all(t.dtype == "float32" and t.shape in half and t.shape not in wide for t in moments)
    return bool(moments) and fits and not averaged


def _whole_numbers(optimizer: OptimizerState) -> Iterator[Problem]:
    """Moments that were cut to whole numbers, where others of the same name are floating-point numbers."""
    moments = [(k, n, t.dtype) for k, s in optimizer.states.items() for n, t in s.tensors.items() if n in _MOMENTS]
    floats = {name for _, name, dtype in moments if dtype in FLOAT_DTYPES}
    whole = [m for m in moments if m[1] in floats and m[2] in _INTEGERS]
    if whole:
        key, name, dtype = whole[0]
        yield Problem(
            message=f"{name} of parameter {key} is {dtype}, although it is a floating-point tensor for other "
            "parameters: every fraction is lost"
            f"{f', and the same in {len(whole) - 1:,} more' if len(whole) > 1 else ''}",
            place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{key}].{name}")),
            help="save the optimizer's state_dict without casting it",
            data={"whole": len(whole), "moments": len(moments)},
        )


def _has_masters(checkpoint: Checkpoint, optimizer: OptimizerState) -> bool:
    keys = [str(k) for k in maybe(lambda: checkpoint.state.values) or ()]
    keys += {n for s in optimizer.states.values() for n in s.tensors}
    return any(word in k.lower() for k in keys for word in _MASTERS)

"""previous/unchanged and previous/norm-jump: weights that did not move, or moved further than steps can take them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Measure,
    Measured,
    Place,
    Problem,
    Reads,
    Rule,
    Severity,
    Wanted,
    measured_tensors,
    measured_weights,
)
from ckpt_rules_previous.optimizer import is_moment
from ckpt_rules_previous.saves import base_rates, called, had_rate, listed, maybe, rates, steps_between
from ckpt_rules_previous.stale import PARTS, identical, may_have_changed, steps_by_progress

_OWN_HEAD = re.compile(r"(?:^|\.)(?:v_head|value_head|reward_head)\.")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|score|classifier|qa_outputs|head)\.")
_FEW = 64
_SMALL = 0.01
"""Root mean square that weights have which do not begin at zero."""

_USUAL_RATE = 1e-3
_MOST = 10


class _OfValues(Rule):
    """What rules about the values of two saves have in common."""

    tags = frozenset({"numerics", "previous"})
    reads = Reads.BYTES
    severity = Severity.WARNING
    compares = True


class Unchanged(_OfValues):
    """Steps were made, but the weights, a head of the model or the optimizer are the same as in the previous save.

    ## What it checks
    If the counters show that steps were made since the previous save with a learning rate above zero: whether every
    floating-point weight is the same, bit for bit; and whether those of a value or reward head are, or of another head
    if the optimizer keeps state for every weight, so that none is frozen (a warning). Single weights may stay as they
    are: they may be frozen. Also whether all of the optimizer's moments are the same. What checksums in the files
    already show is reported by `previous/stale-state`.

    ## Why it matters
    Gradients do not arrive, or the save writes a copy of the model that is not the one being trained. There is no other
    sign: the loss is logged, the files are there, and the result of a week's training is the initial model.

    ## How to repair
    Check which parameters the optimizer was given, and which object the save code writes. Older saves show when it
    began.
    """

    id = "previous/unchanged"
    severity = Severity.ERROR

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The fingerprints of all tensors; sums where their elements lie in several places."""
        return Wanted(Measure.FINGERPRINT | Measure.MOMENTS) if _comparable(checkpoint) else Wanted()

    def wanted_before(self, checkpoint: Checkpoint) -> Wanted:
        """The same of the earlier save."""
        return self.wanted(checkpoint)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for the optimizer, and one for all weights or for the head."""
        name, steps = called(checkpoint.previous), steps_between(checkpoint)
        measures = Measure.FINGERPRINT | Measure.MOMENTS
        told = {
            what
            for what, find in PARTS.items()
            if may_have_changed(what, checkpoint, steps) and identical(find, checkpoint)[1]
        }
        moments: list[Problem] = []
        if "optimizer" not in told and maybe(lambda: steps_by_progress(checkpoint)) is not None:
            moments = list(_same_moments(checkpoint, name, steps, measures))
        yield from moments
        if not had_rate(checkpoint, steps):
            if moments:
                return
            raise FactUnavailable("the learning rate may have been zero between the two saves")
        if "weights" not in told:
            yield from _same_weights(checkpoint, name, steps, _pairs(checkpoint, measures))


def _same_moments(checkpoint: Checkpoint, name: str, steps: int, measures: Measure) -> Iterator[Problem]:
    """One problem where every moment is as it was; those that never left zero say nothing."""
    before = {
        (m.tensor.path, m.tensor.name): m for m in measured_tensors(checkpoint.previous, measures) if _is_moment(m)
    }
    after = {(m.tensor.path, m.tensor.name): m for m in measured_tensors(checkpoint, measures) if _is_moment(m)}
    said = any(m.values.squares for m in after.values())
    if said and before.keys() == after.keys() and all(_signature(before[k]) == _signature(m) for k, m in after.items()):
        path, _ = next(iter(after))
        yield Problem(
            message=f"{steps:,} steps were made since {name}, but all {len(after):,} moments of the optimizer are "
            "the same, bit for bit",
            place=Place(path=path),
            help=f"resume from {name}, and check which object the save code writes",
            data={"which": "optimizer", "tensors": len(after), "steps": steps, "previous": name},
        )


def _is_moment(measured: Measured) -> bool:
    return measured.tensor.is_float and is_moment(measured.tensor.name)


def _same_weights(
    checkpoint: Checkpoint, name: str, steps: int, pairs: list[tuple[str, Measured, Measured]]
) -> Iterator[Problem]:
    same = [weight for weight, before, after in pairs if _signature(before) == _signature(after)]
    which, names = "all", same
    if len(same) < len(pairs):
        which, names = "head", _unchanged_head(checkpoint, [weight for weight, *_ in pairs], same)
    if names:
        whose = f"all {len(names):,} weights are" if which == "all" else f"the head ({listed(names)}) is"
        path = next(after.tensor.path for weight, _, after in pairs if weight == names[0])
        yield Problem(
            message=f"{steps:,} steps were made since {name}, but {whose} the same, bit for bit",
            place=Place(path=path, tensor=names[0]),
            severity=None if which == "all" else Severity.WARNING,
            help="check which parameters the optimizer was given, and which object the save code writes",
            data={"which": which, "tensors": names[:1000], "of": len(pairs), "steps": steps, "previous": name},
        )


def _signature(measured: Measured) -> tuple[object, ...]:
    values = measured.values
    seen = (values.total, values.squares) if values.fingerprint is None else (values.fingerprint,)
    return (measured.tensor.dtype, measured.tensor.shape, *seen)


def _unchanged_head(checkpoint: Checkpoint, weights: list[str], same: list[str]) -> list[str]:
    """The weights of a head that is known to be trained, where none of them changed."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    all_trained = sum(len(o.states) for o in optimizers) >= len(weights)
    for head in (_OWN_HEAD, _HEAD) if all_trained else (_OWN_HEAD,):
        names = [n for n in weights if head.search(n)]
        if names and set(names) <= set(same):
            return names
    return []


class NormJump(_OfValues):
    """The norm of a weight jumped since the previous save.

    ## What it checks
    Every floating-point weight with at least two dimensions longer than 1 and 64 elements or more, whose root mean
    square was 0.01 or more: that it did not grow or shrink by more than `factor`, beyond what the learning rate allows
    in the steps between. Weights that start at zero may grow.

    ## Why it matters
    An exponent bit that flipped, a tensor written over by another, or the first save after a divergence. The loss after
    a resume shows the same problem, hours later.

    ## How to repair
    Resume from the previous save. If the weights jump again, lower the learning rate or clip the gradients; if not, the
    file was damaged.
    """

    id = "previous/norm-jump"

    factor: float = Field(default=10.0, gt=1, description="How many times larger or smaller a norm may become.")

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The sums of squares of all tensors."""
        return Wanted(Measure.MOMENTS) if _comparable(checkpoint) else Wanted()

    def wanted_before(self, checkpoint: Checkpoint) -> Wanted:
        """The same of the earlier save."""
        return self.wanted(checkpoint)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each of the first ten weights, the furthest jumps first."""
        name, steps = called(checkpoint.previous), steps_between(checkpoint)
        reach = _fastest(checkpoint) * steps
        jumps = []
        for weight, before, after in _pairs(checkpoint, Measure.MOMENTS):
            was, now = _mean_size(before), _mean_size(after)
            if _is_large_matrix(after) and was >= _SMALL and abs(now - was) > reach:
                ratio = max(now / was, was / now if now else math.inf)
                jumps += [(ratio, weight, was, now, after)] if ratio > self.factor else []
        jumps.sort(key=lambda jump: -jump[0])
        for ratio, weight, was, now, after in jumps[:_MOST]:
            yield Problem(
                message=f"its norm is {_times(now, was)} that in {name}, {steps:,} steps before (root mean square "
                f"{was:.4g}, now "
                f"{now:.4g}); {len(jumps):,} weights jumped",
                place=Place(path=after.tensor.path, tensor=weight),
                help=f"resume from {name}; if it jumps again, lower the learning rate or clip the gradients",
                data={"before": was, "after": now, "ratio": ratio, "tensors": len(jumps), "previous": name},
            )


def _fastest(checkpoint: Checkpoint) -> float:
    """The largest learning rate known of the run: about what an update can add to an element."""
    earlier = checkpoint.previous
    known = [*rates(earlier), *rates(checkpoint), *base_rates(earlier), *base_rates(checkpoint)]
    return max(known, default=_USUAL_RATE)


def _mean_size(measured: Measured) -> float:
    """The root mean square."""
    norm = measured.values.norm
    return 0.0 if norm is None else norm / math.sqrt(measured.values.numel)


def _is_large_matrix(measured: Measured) -> bool:
    return measured.values.numel >= _FEW and sum(size > 1 for size in measured.tensor.shape) >= 2


def _times(now: float, was: float) -> str:
    return f"{now / was:,.4g} times" if now >= was else f"1/{was / now:,.4g} of" if now else "zero, and was not"


def _comparable(checkpoint: Checkpoint) -> bool:
    """Whether there is an earlier save with steps between."""
    return maybe(lambda: steps_between(checkpoint)) is not None


def _pairs(checkpoint: Checkpoint, measures: Measure) -> list[tuple[str, Measured, Measured]]:
    """The floating-point weights that both saves hold, with their values before and after.

    FactUnavailable where there is none.
    """
    earlier = dict(measured_weights(checkpoint.previous, measures))
    found = [
        (name, earlier[name], after)
        for name, after in measured_weights(checkpoint, measures)
        if name in earlier and after.tensor.is_float
    ]
    if not found:
        raise FactUnavailable("the two saves have no floating-point weights in common")
    return found

"""numerics/negative-second-moment: means of squares that are below zero."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Measure,
    Measured,
    Place,
    Problem,
    Reads,
    Rule,
    Wanted,
    measured_tensors,
)
from ckpt_rules_numerics.tensors import each_once

_SECOND_MOMENTS = frozenset({"exp_avg_sq", "max_exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col", "square_avg"})
_FIRST_MOMENTS = frozenset({"exp_avg", "momentum_buffer", "exp_inf", "grad_avg"})
_MOST = 10


class NegativeSecondMoment(Rule):
    """A second moment of the optimizer is negative.

    ## What it checks
    The smallest value of every tensor that an optimizer keeps a mean of squares in: `exp_avg_sq` and `max_exp_avg_sq`
    of the Adam family, the rows and columns of Adafactor, `square_avg` of RMSprop. Adagrad's `sum` counts as one where
    it is kept in the optimizer's `state`.

    ## Why it matters
    A mean of squares can't be negative. Its root is NaN, and so is the weight after the first update. A sign bit has
    flipped, or the tensors of the optimizer were mixed up when it was saved.

    ## How to repair
    Resume from an earlier save, or with a new optimizer state and a warmup.
    """

    id = "numerics/negative-second-moment"
    tags = frozenset({"numerics", "optimizer", "resume"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The range of every tensor."""
        return Wanted(Measure.RANGE)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each of the first ten tensors."""
        moments = [
            m for m in each_once(measured_tensors(checkpoint, Measure.RANGE)) if _is_second_moment(m.tensor.name)
        ]
        if not moments:
            raise FactUnavailable("no optimizer in the checkpoint keeps second moments")
        negative = [m for m in moments if m.values.smallest is not None and m.values.smallest < 0]
        for measured in negative[:_MOST]:
            yield _problem(measured, len(negative), len(moments))


def is_moment(name: str) -> bool:
    """Whether an optimizer keeps a running mean of gradients, or of their squares, under this name."""
    return name.rpartition(".")[2] in _FIRST_MOMENTS or _is_second_moment(name)


def _is_second_moment(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in _SECOND_MOMENTS or (parts[-1] == "sum" and "state" in parts)


def _problem(measured: Measured, negative: int, moments: int) -> Problem:
    tensor, values, _ = measured
    return Problem(
        message=f"the smallest of {values.numel:,} second moments is {values.smallest:.6g}, but a mean of squares "
        f"can't be negative; {negative:,} of {moments:,} such tensors hold negative values",
        place=Place(path=tensor.blocks[0].path, tensor=tensor.name),
        help="resume from an earlier save, or with a new optimizer state and a warmup",
        data={"smallest": values.smallest, "tensors": negative, "of": moments},
    )

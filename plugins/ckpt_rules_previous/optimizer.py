"""previous/optimizer-reset: the optimizer was started again between two saves."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Measure,
    OptimizerState,
    Place,
    Problem,
    Reads,
    Rule,
    Wanted,
    located_tensors,
    measured_tensors,
)
from ckpt_rules_previous.saves import called, maybe, progress_counters

_MOMENTS = frozenset(
    {"exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "exp_avg_sq_row", "exp_avg_sq_col", "exp_inf", "sum"}
)


class OptimizerReset(Rule):
    """Training continued, but the optimizer was restarted.

    ## What it checks
    That no optimizer has counted fewer updates than in the previous save, and that its moments are not all zero if they
    were not before. If the progress itself went back, `previous/progress-went-back` reports that instead.

    ## Why it matters
    A resume that did not load the optimizer starts its moments from zero. The first updates are as large as those of a
    run that has just begun, at a learning rate that is not: the loss jumps, and part of what was learned is lost.

    ## How to repair
    Resume from the previous save, and make sure that the optimizer's state is loaded: a loader that finds none may only
    log it.
    """

    id = "previous/optimizer-reset"
    tags = frozenset({"optimizer", "previous", "resume"})
    reads = Reads.BYTES
    compares = True

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The sums of squares of all tensors, where moments are kept in both saves."""
        kept = maybe(lambda: _keeps_moments(checkpoint) and _keeps_moments(checkpoint.previous))
        return Wanted(Measure.MOMENTS) if kept else Wanted()

    def wanted_before(self, checkpoint: Checkpoint) -> Wanted:
        """The same of the earlier save."""
        return self.wanted(checkpoint)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each optimizer, or one for the moments."""
        name, before, after = called(checkpoint.previous), checkpoint.previous.optimizers, checkpoint.optimizers
        moved = next((counter.after - counter.before for counter in progress_counters(checkpoint)), None)
        if moved is not None and moved <= 0:
            raise FactUnavailable("no step was made between the two saves")
        counted = list(_counted(name, before, after))
        yield from counted
        if not counted and self.wanted(checkpoint):
            yield from _emptied(checkpoint, name, after)


def _counted(name: str, before: tuple[OptimizerState, ...], after: tuple[OptimizerState, ...]) -> Iterator[Problem]:
    for was, now in zip(before, after, strict=False):
        if was.updates is not None and now.updates is not None and now.updates < was.updates:
            yield Problem(
                message=f"the optimizer has counted {now.updates:,} updates, but {was.updates:,} in the previous "
                f"save, {name}: it was restarted",
                place=Place(path=now.path, key=now.key or None),
                help=f"resume from {name}, and make sure that the optimizer's state is loaded",
                data={"before": was.updates, "after": now.updates, "previous": name},
            )


def _emptied(checkpoint: Checkpoint, name: str, optimizers: tuple[OptimizerState, ...]) -> Iterator[Problem]:
    now, was = _sizes(checkpoint), _sizes(checkpoint.previous)
    if now and not any(now) and any(was):
        where = optimizers[0] if optimizers else None
        yield Problem(
            message=f"all {len(now):,} moments of the optimizer are zero, but they were not in the previous save, "
            f"{name}",
            place=Place(path=where.path if where else ".", key=(where.key or None) if where else None),
            help=f"resume from {name}, and make sure that the optimizer's state is loaded",
            data={"moments": len(now), "previous": name},
        )


def _keeps_moments(checkpoint: Checkpoint) -> bool:
    return any(is_moment(tensor.name) for tensor in located_tensors(checkpoint))


def _sizes(checkpoint: Checkpoint) -> list[float]:
    """The sum of the squares of each moment."""
    found = (m for m in measured_tensors(checkpoint, Measure.MOMENTS) if is_moment(m.tensor.name))
    return [m.values.squares for m in found if m.values.squares is not None]


def is_moment(name: str) -> bool:
    """Whether a tensor of `located` is a moment of an optimizer."""
    *above, last = name.split(".")
    return last in _MOMENTS and "state" in above

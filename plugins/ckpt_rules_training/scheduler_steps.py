"""scheduler/step-mismatch: whether the scheduler has come as far as training has."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, SchedulerState, Severity, is_count
from ckpt_rules_training.scheduler_counts import Candidate, candidates
from ckpt_rules_training.scheduler_doubts import may_be_of_uncounted_optimizer, may_count_batches, steps_in_turns
from ckpt_rules_training.scheduler_parts import counter_key, part_steps
from ckpt_rules_training.words import shown


class StepMismatch(Rule):
    """The scheduler's step count does not match the training progress.

    ## What it checks
    That a torch scheduler has a `last_epoch` (an error, because without it the scheduler starts again from its first
    step). Then `last_epoch` against everything that it may count: optimizer updates (made, or implied by the counters),
    batches, the global step, and finished epochs. It must agree with one of them. `_step_count` should be
    `last_epoch` plus 1. ReduceLROnPlateau counts evaluations and SWALR counts from the start of averaging; neither is
    checked. If the trainer itself counts every update, as the transformers Trainer does, it must agree exactly, unless
    the option `tolerance` is set. Each of several schedulers is checked; if there are more schedulers than optimizers,
    so that one may continue where another stopped, it is enough that the sum of their steps agrees. In a sequence
    (SequentialLR), the active part, which counts from its milestone, is also checked, and in a chain every part,
    because all make the same steps.

    ## Why it matters
    The learning rate is a function of that number. A scheduler that is behind repeats part of its schedule, often the
    warm-up; one that is ahead ends too early.

    ## How to repair
    Rebuild the scheduler and step it forward to the current training step, or set `last_epoch` in its state. Step it
    once per update (or once per epoch), before saving.
    """

    id = "scheduler/step-mismatch"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: int = Field(default=1, ge=0, description="Allowed difference, in scheduler steps.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for `last_epoch`, or one for `_step_count`."""
        schedulers = checkpoint.schedulers
        lost = [s for s in schedulers if _has_lost_count(s)]
        yield from map(_lost_count, lost)
        schedulers = tuple(s for s in schedulers if s not in lost)
        if lost and not schedulers:
            return
        unknown = [why for s in schedulers if (why := _uncounted(s))]
        if len(unknown) == len(schedulers):
            raise FactUnavailable(unknown[0])
        for scheduler in schedulers:
            if not _uncounted(scheduler):
                yield from self._of(checkpoint, scheduler)

    def _of(self, checkpoint: Checkpoint, scheduler: SchedulerState) -> Iterator[Problem]:
        if not is_count(scheduler.last_epoch):
            yield _no_count(scheduler)
            return
        steps, possible = int(scheduler.last_epoch), candidates(checkpoint, scheduler)
        exact = checkpoint.progress.exact and "tolerance" not in self.model_fields_set
        tolerance = 0 if exact else self.tolerance
        counts = (steps, *steps_in_turns(checkpoint))
        if (
            not possible
            or any(candidate.fits(count, tolerance) for candidate in possible for count in counts)
            or may_count_batches(checkpoint, steps, tolerance)
            or may_be_of_uncounted_optimizer(checkpoint, scheduler)
        ):
            yield from list(part_steps(scheduler)) or _step_count(scheduler, steps, tolerance)
        else:
            yield _mismatch(scheduler, steps, possible)


def _has_lost_count(scheduler: SchedulerState) -> bool:
    """Whether a scheduler of torch, which counts its calls as well, has no count of its steps."""
    return (
        scheduler.last_epoch is None and scheduler.values.keys() >= {"base_lrs", "_step_count"} and not scheduler.parts
    )


def _lost_count(scheduler: SchedulerState) -> Problem:
    what = "is None" if "last_epoch" in scheduler.values else "is missing"
    return Problem(
        message=f"last_epoch of the scheduler ({scheduler.kind}) {what}: it starts again from its first step, or fails",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        severity=Severity.ERROR,
        help="set it to the number of steps that were made, or step a new scheduler forward to the current training "
        "step",
        data={"last_epoch": None},
    )


def _uncounted(scheduler: SchedulerState) -> str | None:
    """Why a scheduler's steps can't be compared, or None."""
    if scheduler.kind == "ReduceLROnPlateau":
        return "ReduceLROnPlateau counts evaluations, not updates"
    if scheduler.kind == "SWALR":  # Lightning's begins at the number of epochs, by itself it begins at 0
        return "SWALR counts from the start of averaging"
    return f"the scheduler ({scheduler.kind}) keeps no last_epoch" if scheduler.last_epoch is None else None


def _mismatch(scheduler: SchedulerState, steps: int, possible: list[Candidate]) -> Problem:
    return Problem(
        message=f"the scheduler is at step {steps:,}; expected {_expected(possible)}",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        help="rebuild the scheduler and step it forward to the current training step",
        data={"last_epoch": steps, "candidates": [{"of": c.words, "from": c.low, "to": c.high} for c in possible]},
    )


def _expected(possible: list[Candidate]) -> str:
    """`500 (optimizer updates = global steps) or 2 to 3 (epochs)`."""
    words: dict[str, list[str]] = {}
    for each in possible:
        words.setdefault(each.numbers, []).append(each.words)
    return " or ".join(f"{numbers} ({' = '.join(dict.fromkeys(said))})" for numbers, said in words.items())


def _no_count(scheduler: SchedulerState) -> Problem:
    return Problem(
        message=f"last_epoch of the scheduler is {shown(scheduler.last_epoch)}, which is not a count of steps",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        help="rebuild the scheduler and step it forward to the current training step",
        data={"last_epoch": str(scheduler.last_epoch)},
    )


def _step_count(scheduler: SchedulerState, steps: int, tolerance: int) -> Iterator[Problem]:
    calls = scheduler.step_count
    # Warm restarts never count their calls, and a scheduler that was built with last_epoch counts from there.
    if (
        calls is None
        or scheduler.kind == "CosineAnnealingWarmRestarts"
        or (is_count(calls) and 0 < calls <= steps + 1 + tolerance)
    ):
        return
    yield Problem(
        message=f"_step_count of the scheduler is {shown(calls)}, but last_epoch is {steps:,}",
        place=Place(path=scheduler.path, key=f"{counter_key(scheduler).removesuffix('last_epoch')}_step_count"),
        help="the two are written together: rebuild the scheduler and step it forward",
        data={"step_count": str(calls), "last_epoch": steps},
    )

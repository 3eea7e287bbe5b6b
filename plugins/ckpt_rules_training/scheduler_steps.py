"""scheduler/step-mismatch: whether the scheduler has come as far as training has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, Place, Problem, Rule, SchedulerState, Severity, is_count
from ckpt_rules_training.maybe import is_scaled, maybe
from ckpt_rules_training.scheduler_owner import owner
from ckpt_rules_training.scheduler_parts import counter_key, part_steps
from ckpt_rules_training.words import shown

_MOST_ACCUMULATED = 64
_WORLD_SIZES = ("world_size", "num_processes", "n_gpus", "num_gpus", "ngpus", "n_gpu")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What a scheduler may count: from `low` to `high`, and the words for it."""

    words: str
    low: int
    high: int

    def fits(self, steps: int, tolerance: int) -> bool:
        return self.low - tolerance <= steps <= self.high + tolerance

    def __str__(self) -> str:
        numbers = f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"
        return f"{numbers} {self.words}"


class StepMismatch(Rule):
    """The scheduler has made another number of steps than training.

    ## What it checks
    That a scheduler of torch has a `last_epoch`, without which it starts again from its first step, an error. Then the
    scheduler's `last_epoch` against everything that it may count: optimizer updates (made, or implied by the counters),
    batches, the global step, and finished epochs. It must agree with one of them. `_step_count` ought to be
    `last_epoch` plus 1. ReduceLROnPlateau counts evaluations, SWALR counts from where averaging began; both are left alone.
    Where the trainer itself counts every update, as the transformers Trainer does, it must agree exactly, unless the option
    `tolerance` is set. Of several schedulers each is looked at, and where there are more of them than optimizers, so that one
    may go on where another stopped, it is enough that the steps of all together agree; in a sequence
    (SequentialLR) also the part that is at work, which counts from its milestone, and in a chain every part, for all make
    the same steps.

    ## Why it matters
    The learning rate is a function of that number. A scheduler that is behind repeats a part of its schedule, the warm-up
    most of all; one that is ahead ends too early.

    ## How to repair
    Build the scheduler anew and step it to the update where training stands, or set `last_epoch` in its state. Step it once
    for every update (or once for every epoch), before saving.
    """

    id = "scheduler/step-mismatch"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: int = Field(default=1, ge=0, description="Steps by which the scheduler may differ without a word.")

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
        steps, candidates = int(scheduler.last_epoch), _candidates(checkpoint, scheduler)
        exact = checkpoint.progress.exact and "tolerance" not in self.model_fields_set
        tolerance = 0 if exact else self.tolerance
        counts = (steps, *_in_turns(checkpoint))
        fits = not candidates or any(c.fits(n, tolerance) for c in candidates for n in counts)
        if fits or _is_undecided(checkpoint, steps, tolerance) or _may_be_uncounted(checkpoint, scheduler):
            yield from list(part_steps(scheduler)) or _step_count(scheduler, steps, tolerance)
        else:
            yield _mismatch(scheduler, steps, candidates)


def _has_lost_count(scheduler: SchedulerState) -> bool:
    """Whether a scheduler of torch, which counts its calls as well, has no count of its steps."""
    return (
        scheduler.last_epoch is None and scheduler.values.keys() >= {"base_lrs", "_step_count"} and not scheduler.parts
    )


def _lost_count(scheduler: SchedulerState) -> Problem:
    what = "is None" if "last_epoch" in scheduler.values else "is missing"
    return Problem(
        message=f"last_epoch of the scheduler ({scheduler.kind}) {what}: it starts again from its first step, or stops",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        severity=Severity.ERROR,
        help="set it to the steps that were made, or step a new scheduler to where training stands",
        data={"last_epoch": None},
    )


def _uncounted(scheduler: SchedulerState) -> str | None:
    """Why a scheduler's steps can't be compared, or None."""
    if scheduler.kind == "ReduceLROnPlateau":
        return "ReduceLROnPlateau counts evaluations, not updates"
    if scheduler.kind == "SWALR":  # Lightning's begins at the number of epochs, by itself it begins at 0
        return "SWALR counts from where averaging began"
    return f"the scheduler ({scheduler.kind}) keeps no last_epoch" if scheduler.last_epoch is None else None


def _candidates(checkpoint: Checkpoint, scheduler: SchedulerState) -> list[_Candidate]:
    progress = checkpoint.progress
    expected, done = progress.expected_updates, _made(checkpoint)
    if expected is not None and done and is_scaled(checkpoint):
        # Updates that the scaler skips are steps of the scheduler in some loops, and none in others.
        found = [_Candidate("optimizer updates", min(n, expected), max(n, expected)) for n in done]
    else:
        both = dict.fromkeys(n for n in (*done, expected) if n is not None)
        found = [_Candidate("optimizer updates", n, n) for n in both]
    world = _world_size(checkpoint)
    if world > 1:  # Accelerate steps the scheduler once for each process
        found += [_Candidate(f"updates on {world} processes", n * world, n * world) for n in {*done, expected} if n]
    if progress.global_step is not None:
        found.append(_Candidate("global steps", progress.global_step, progress.global_step))
    if progress.batches_done is not None:
        found.append(_Candidate("batches", progress.batches_done, progress.batches_done))
    if progress.epoch is not None:
        under_way = not progress.complete
        found.append(_Candidate("epochs", max(progress.epoch - under_way, 0), progress.epoch))
    return [*found, *_told_by_trainer(checkpoint, scheduler)]


def _in_turns(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The steps of all schedulers together, where there are more than optimizers: one may go on where another stopped."""
    counts = [s.last_epoch for s in checkpoint.schedulers]
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    known = [int(n) for n in counts if is_count(n)]
    return (sum(known),) if len(optimizers) < len(counts) == len(known) else ()


def _made(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Updates of each optimizer that counts any, each number once; of several, one may not have begun."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    made = (0 if len(optimizers) > 1 and not o.states else o.updates for o in optimizers)
    return tuple(dict.fromkeys(n for n in made if n is not None))


def _told_by_trainer(checkpoint: Checkpoint, scheduler: SchedulerState) -> Iterator[_Candidate]:
    """What the trainer's own count of all schedulers' steps leaves for this one."""
    total = checkpoint.progress.scheduler_steps
    others = [s.last_epoch for s in checkpoint.schedulers if s is not scheduler]
    if total is not None and all(map(is_count, others)):
        left = total - sum(int(n) for n in others if is_count(n))
        if left >= 0:
            yield _Candidate("steps of schedulers", left, left)


def _world_size(checkpoint: Checkpoint) -> int:
    """Processes that trained, where the state or the options saved with it say so; else 1."""
    ranks = maybe(lambda: checkpoint.ranks)
    if ranks is not None:
        return ranks.world_size or max((len(family.paths) for family in ranks.families), default=1)
    values = checkpoint.state.values
    for options in (values, *(v for v in map(_options, values.values()) if v)):
        for name in _WORLD_SIZES:
            if is_count(options.get(name)):
                return int(options[name])  # type: ignore[call-overload,no-any-return]
    return 1


def _options(value: object) -> Mapping[object, object]:
    value = value.state if isinstance(value, Opaque) else value
    return value if isinstance(value, Mapping) else {}


def _is_undecided(checkpoint: Checkpoint, steps: int, tolerance: int) -> bool:
    """Whether the scheduler may count batches whose number is not recorded."""
    progress = checkpoint.progress
    if progress.batches_done is not None:
        return False
    made = progress.global_step or max(_made(checkpoint), default=None)
    if made is None:
        return steps > (progress.epoch or 0)
    ratio = round(steps / made) if made else 0
    return 1 < ratio <= _MOST_ACCUMULATED and abs(steps - ratio * made) <= ratio * (tolerance + 1)


def _may_be_uncounted(checkpoint: Checkpoint, scheduler: SchedulerState) -> bool:
    """Whether it may belong to one of several optimizers that counts no updates."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    if len(optimizers) < 2 or all(o.updates is not None for o in optimizers):
        return False
    own = owner(checkpoint, scheduler)
    return own is None or own.updates is None


def _mismatch(scheduler: SchedulerState, steps: int, candidates: list[_Candidate]) -> Problem:
    unique = list(dict.fromkeys(map(str, candidates)))
    return Problem(
        message=f"the scheduler has made {steps:,} steps, which fits none of {', '.join(unique)}",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        help="build the scheduler anew and step it to the update where training stands",
        data={"last_epoch": steps, "candidates": [{"of": c.words, "from": c.low, "to": c.high} for c in candidates]},
    )


def _no_count(scheduler: SchedulerState) -> Problem:
    return Problem(
        message=f"last_epoch of the scheduler is {shown(scheduler.last_epoch)}, which is no count of steps",
        place=Place(path=scheduler.path, key=counter_key(scheduler)),
        help="build the scheduler anew and step it to the update where training stands",
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
        help="the two are written together: build the scheduler anew and step it forward",
        data={"step_count": str(calls), "last_epoch": steps},
    )

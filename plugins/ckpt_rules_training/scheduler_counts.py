"""What a scheduler may count, and how far that has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, Opaque, SchedulerState, is_count
from ckpt_rules_training.maybe import is_scaled, maybe

# Options under which scripts and trainers keep the number of processes.
_WORLD_SIZES = ("world_size", "num_processes", "n_gpus", "num_gpus", "ngpus", "n_gpu")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a scheduler may count: from `low` to `high`, and the words for it."""

    words: str
    low: int
    high: int

    def fits(self, steps: int, tolerance: int) -> bool:
        """Whether a scheduler that counts this may have made so many steps."""
        return self.low - tolerance <= steps <= self.high + tolerance

    @property
    def numbers(self) -> str:
        """`500`, or `2 to 3`."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


def candidates(checkpoint: Checkpoint, scheduler: SchedulerState) -> list[Candidate]:
    """Everything that this scheduler may count."""
    return [
        *_optimizer_updates(checkpoint),
        *_updates_of_all_processes(checkpoint),
        *_counters(checkpoint),
        *_left_by_trainer(checkpoint, scheduler),
    ]


def updates_made(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Updates of each optimizer that counts any, each number once; of several, one may not have begun."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    made = (0 if len(optimizers) > 1 and not o.states else o.updates for o in optimizers)
    return tuple(dict.fromkeys(n for n in made if n is not None))


def _optimizer_updates(checkpoint: Checkpoint) -> Iterator[Candidate]:
    """Optimizer updates: those that were made, and those that the counters imply."""
    expected, done = checkpoint.progress.expected_updates, updates_made(checkpoint)
    if expected is not None and done and is_scaled(checkpoint):
        # Updates that the scaler skips are steps of the scheduler in some loops, and none in others.
        yield from (Candidate("optimizer updates", min(n, expected), max(n, expected)) for n in done)
    else:
        both = dict.fromkeys(n for n in (*done, expected) if n is not None)
        yield from (Candidate("optimizer updates", n, n) for n in both)


def _updates_of_all_processes(checkpoint: Checkpoint) -> Iterator[Candidate]:
    """The same once for each process, as Accelerate steps a scheduler."""
    world, expected = _world_size(checkpoint), checkpoint.progress.expected_updates
    if world > 1:
        made = {*updates_made(checkpoint), expected}
        yield from (Candidate(f"updates on {world} processes", n * world, n * world) for n in made if n)


def _counters(checkpoint: Checkpoint) -> Iterator[Candidate]:
    """The trainer's own counters of steps, batches and finished epochs."""
    progress = checkpoint.progress
    if progress.global_step is not None:
        yield Candidate("global steps", progress.global_step, progress.global_step)
    if progress.batches_done is not None:
        yield Candidate("batches", progress.batches_done, progress.batches_done)
    if progress.epoch is not None:
        under_way = not progress.complete
        yield Candidate("epochs", max(progress.epoch - under_way, 0), progress.epoch)


def _left_by_trainer(checkpoint: Checkpoint, scheduler: SchedulerState) -> Iterator[Candidate]:
    """What the trainer's own count of all schedulers' steps leaves for this one."""
    total = checkpoint.progress.scheduler_steps
    others = [s.last_epoch for s in checkpoint.schedulers if s is not scheduler]
    if total is not None and all(map(is_count, others)):
        left = total - sum(int(n) for n in others if is_count(n))
        if left >= 0:
            yield Candidate("steps of schedulers", left, left)


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

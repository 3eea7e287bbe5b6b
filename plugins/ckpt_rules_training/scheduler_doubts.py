"""Why a scheduler that agrees with none of the counters may be right all the same."""

from __future__ import annotations

from ckpt_rules import Checkpoint, SchedulerState, is_count
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.scheduler_counts import updates_made
from ckpt_rules_training.scheduler_owner import owner

_MOST_ACCUMULATED = 64


def steps_in_turns(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The steps of all schedulers together, where there are more than optimizers: one may continue where another stopped."""
    counts = [s.last_epoch for s in checkpoint.schedulers]
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    known = [int(n) for n in counts if is_count(n)]
    return (sum(known),) if len(optimizers) < len(counts) == len(known) else ()


def may_count_batches(checkpoint: Checkpoint, steps: int, tolerance: int) -> bool:
    """Whether the scheduler may count batches whose number is not recorded."""
    progress = checkpoint.progress
    if progress.batches_done is not None:
        return False
    made = progress.global_step or max(updates_made(checkpoint), default=None)
    if made is None:
        return steps > (progress.epoch or 0)
    ratio = round(steps / made) if made else 0
    return 1 < ratio <= _MOST_ACCUMULATED and abs(steps - ratio * made) <= ratio * (tolerance + 1)


def may_be_of_uncounted_optimizer(checkpoint: Checkpoint, scheduler: SchedulerState) -> bool:
    """Whether it may belong to one of several optimizers that counts no updates."""
    optimizers = maybe(lambda: checkpoint.optimizers) or ()
    if len(optimizers) < 2 or all(o.updates is not None for o in optimizers):
        return False
    own = owner(checkpoint, scheduler)
    return own is None or own.updates is None

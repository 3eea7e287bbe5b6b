"""progress/invalid: counters that can't be right, whatever the others say."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, counter_faults
from ckpt_rules_training.maybe import updates_of
from ckpt_rules_training.words import shown


class InvalidProgress(Rule):
    """A progress counter has an impossible value.

    ## What it checks
    Every recorded counter (epoch, step, batches per epoch, global step, gradient accumulation, planned totals): it must
    be a finite, non-negative integer below 2^63, not a boolean. `step` must be less than `total_batches`, which must be
    at least 1. `epoch` 0 with `step` 0, or a global step of 0, is not valid once the optimizer has made updates.

    ## Why it matters
    The loader uses these numbers to decide which epoch to start and how many batches to skip. A negative step skips
    nothing, a step past the end of the epoch skips all of it, NaN compares false with everything; none of these raises
    an error.

    ## How to repair
    Set the counter to the value that the training log shows for this save, or resume from the previous save. Then find
    what wrote it: an average taken over ranks, a float division, a variable saved before it was set.
    """

    id = "progress/invalid"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each counter."""
        updates = updates_of(checkpoint)
        for counter, fault in counter_faults(checkpoint.recorded, updates):
            yield Problem(
                message=f"{counter.key} is {shown(counter.value)}, {fault}",
                place=Place(path=counter.path, key=counter.key),
                help=f"set '{counter.key}' to what the training log shows for this save, or resume from the previous "
                "save",
                data={"counter": counter.name, "value": counter.value, "optimizer_updates": updates},
            )

"""optimizer/step-drift and optimizer/uneven-steps: how many updates the optimizer has made."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    OptimizerState,
    Place,
    Problem,
    Progress,
    Rule,
    Severity,
    is_count,
    plain,
)
from ckpt_rules_training.maybe import is_scaled
from ckpt_rules_training.words import count, inside, listed, shown

_FIRST_SCALE = 65536.0


class StepDrift(Rule):
    """The number of optimizer updates does not match the recorded progress.

    ## What it checks
    The updates that the optimizer has counted against those that epoch, step and batches per epoch imply (gradient
    accumulation taken into account if it is recorded or follows from two other counters), or against the global step if
    there is nothing else. With a gradient scaler in use, updates that overflowed and were skipped may be missing: a
    fraction of all updates, and one for each halving of the loss scale since its initial value. If the trainer itself
    counts every update, as the transformers Trainer does, the two must agree exactly, unless the option `tolerance` is
    set.

    ## Why it matters
    Weights, moments and counters then belong to different training steps: the optimizer or the counters were restarted
    or taken from another save. Bias correction and schedule are off by the difference, and batches are repeated or
    skipped.

    ## How to repair
    If batches are accumulated, record `gradient_accumulation_steps` in the training state, or set the option
    `accumulation`. Otherwise resume from a checkpoint whose optimizer and counters agree.
    """

    id = "optimizer/step-drift"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: int = Field(default=20, ge=0, description="Allowed difference, in optimizer updates.")
    error_beyond: int = Field(default=100, ge=0, description="A difference of more updates than this is an error.")
    skipped_fraction: float = Field(
        default=0.02, ge=0, le=1, description="Share of the updates that a gradient scaler may have skipped."
    )
    accumulation: int | None = Field(
        default=None, ge=1, description="Batches per optimizer update, for checkpoints that do not record it."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        optimizer = checkpoint.optimizer
        done = optimizer.updates
        if done is None:
            raise FactUnavailable(f"the optimizer ({optimizer.kind}) keeps no update counters")
        progress = checkpoint.progress
        expected = self._expected(progress, done)
        if expected is None:
            raise FactUnavailable("the recorded progress does not imply a number of optimizer updates")
        slack = 0 if progress.exact and "tolerance" not in self.model_fields_set else self.tolerance
        skipped = math.ceil(expected * self.skipped_fraction) + _halvings(checkpoint) if is_scaled(checkpoint) else 0
        if not expected - slack - skipped <= done <= expected + slack:
            yield self._problem(checkpoint, optimizer, done, expected)

    def _expected(self, progress: Progress, done: int) -> int | None:
        """Updates that the counters imply; with the option, the nearest number that so many batches can make."""
        batches = progress.batches_done
        if self.accumulation is None or batches is None:
            return progress.expected_updates
        low = batches // self.accumulation
        return min(max(done, low), low + (progress.epoch or 0))

    def _problem(self, checkpoint: Checkpoint, optimizer: OptimizerState, done: int, expected: int) -> Problem:
        drift, progress = done - expected, checkpoint.progress
        return Problem(
            message=(
                f"the optimizer has made {count(done, 'update')}, but {_implied(checkpoint, expected)}: "
                f"{abs(drift):,} {'more' if drift > 0 else 'fewer'}"
            ),
            place=Place(path=optimizer.path, key=_key_of(optimizer, done)),
            severity=Severity.ERROR if abs(drift) > self.error_beyond else None,
            help=_advice(progress, done, expected),
            data={"updates": done, "expected": expected, "drift": drift, "batches": progress.batches_done},
        )


def _halvings(checkpoint: Checkpoint) -> int:
    """How often the loss scale was halved since training began, which each time skipped an update; torch begins at 65,536."""
    scale = plain(checkpoint.scaler.scale)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < _FIRST_SCALE:
        return 0
    return math.ceil(math.log2(_FIRST_SCALE) - math.log2(scale))


def _key_of(optimizer: OptimizerState, step: int) -> str:
    index = next((k for k, s in optimizer.states.items() if is_count(s.step) and s.step == step), 0)
    return inside(optimizer.key, f"state[{index}].step")


def _implied(checkpoint: Checkpoint, expected: int) -> str:
    progress = checkpoint.progress
    if progress.exact:
        counter = next((r for r in checkpoint.recorded if r.name == "global_step"), None)
        if counter is not None:
            return f"{counter.key} in {counter.path} is {expected:,}"
    if progress.batches_done is None or progress.epoch is None:
        return f"the recorded step says {expected:,}"
    total = progress.total_batches or 0
    if progress.complete:
        where = f"epoch {progress.epoch:,} is complete at {count(total, 'batch')} each"
    else:
        where = f"epoch {progress.epoch:,} is at batch {progress.step or 0:,} of {total:,}"
    per_update = f", {progress.accumulation} batches per update" if progress.accumulation > 1 else ""
    return f"{where}{per_update}, which implies {expected:,}{_other_reading(progress)}"


def _other_reading(progress: Progress) -> str:
    """What the same counters imply for trainers that count finished epochs."""
    if progress.complete or not progress.step or progress.batches_done is None or progress.total_batches is None:
        return ""
    other = (progress.batches_done + progress.total_batches) // progress.accumulation
    return f" ({other:,} if it counts finished epochs)"


def _advice(progress: Progress, done: int, expected: int) -> str:
    ratio = round(expected / done) if done else 0
    if ratio > 1 and progress.accumulation == 1 and abs(expected - ratio * done) <= ratio * ((progress.epoch or 0) + 1):
        return (
            f"if gradients are accumulated over {ratio} batches, record `gradient_accumulation_steps: {ratio}` in "
            "the training "
            f"state, or set this rule's option `accumulation: {ratio}`; otherwise the optimizer was restarted"
        )
    if progress.global_step is not None and abs(progress.global_step - done) <= 1:
        return "the global step agrees with the optimizer: check how epoch and step were recorded"
    return "resume from a checkpoint whose optimizer and counters were saved at the same step"


class UnevenSteps(Rule):
    """Parameters of one optimizer have different update counts.

    ## What it checks
    The `step` of every parameter in the optimizer's state: whether all are valid counts and equal. Nothing is reported
    if all parameters of a group have the same number, and no group has more than the groups before it: such groups were
    added during training, as Lightning's BackboneFinetuning does.

    ## Why it matters
    Parameters that were temporarily frozen, or experts that saw no tokens, lag behind; whoever built the model will
    know. Otherwise, states of two saves were mixed. Each parameter's bias correction follows its own count.

    ## How to repair
    If some parameters are meant to train less often, raise the option `tolerance`. Otherwise resume from another
    checkpoint.
    """

    id = "optimizer/uneven-steps"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    tolerance: int = Field(default=0, ge=0, description="Allowed difference between parameters, in optimizer updates.")

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """For each optimizer, one problem for counts that differ, one for steps that are not counts."""
        for optimizer in checkpoint.optimizers:
            yield from self._one(optimizer)

    def _one(self, optimizer: OptimizerState) -> Iterator[Problem]:
        steps = optimizer.steps
        strange = [(k, s.step) for k, s in optimizer.states.items() if s.step is not None and not is_count(s.step)]
        if not steps and not strange:
            raise FactUnavailable(f"the optimizer ({optimizer.kind}) keeps no update counters")
        if strange:
            key, step = strange[0]
            yield Problem(
                message=f"the update counter of {count(len(strange), 'parameter')} is not a count: {shown(step)}",
                place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{key}].step")),
                severity=Severity.ERROR,
                help="resume from a checkpoint whose optimizer state is complete",
                data={"parameters": len(strange), "value": str(step)},
            )
        if steps and max(steps) - min(steps) > self.tolerance and not _by_group(optimizer):
            groups = [f"{count(n, 'parameter')} had {count(s, 'update')}" for s, n in steps.most_common()]
            yield Problem(
                message=f"parameters have had different numbers of updates: {listed(groups)}",
                place=Place(path=optimizer.path, key=_key_of(optimizer, steps.most_common()[-1][0])),
                help="if some parameters were frozen for a while, raise this rule's tolerance; otherwise two saves "
                "were mixed",
                data={"steps": {str(s): n for s, n in sorted(steps.items())}},
            )


def _by_group(optimizer: OptimizerState) -> bool:
    """Whether the groups began one after another, and their parameters together."""
    stored = [[optimizer.states[p].step for p in g.params if p in optimizer.states] for g in optimizer.groups]
    groups = [{int(n) for n in steps if is_count(n)} for steps in stored]
    counts = [n for steps in groups for n in steps]
    return all(len(steps) <= 1 for steps in groups) and counts == sorted(counts, reverse=True)

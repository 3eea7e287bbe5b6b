"""progress/counters-disagree and progress/finished: what the checkpoint's own counters say, taken together."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Progress, Recorded, Rule, Severity
from ckpt_rules_training.maybe import updates_of
from ckpt_rules_training.words import count

_HELP = "set the counters to what the training log shows for this save, or resume from the previous save"


class CountersDisagree(Rule):
    """The checkpoint's own counters contradict each other.

    ## What it checks
    The global step against the batches that epoch, step and batches per epoch add up to, against the optimizer updates
    that these imply, and against the updates that the optimizer has counted. It must agree with one of them to within
    1, because trainers count batches or updates, and save before or after they count. Further counters that a layout's
    trainer keeps (the Trainer's fractional `epoch`, Lightning's loops) are compared by that trainer's own arithmetic; a
    counter that no resume reads is information only.

    ## Why it matters
    After a resume the loop takes its position in the data from one counter, and schedules, logging, saving and the end
    of training from another. If they disagree, data is repeated or skipped, or training ends too early or too late.

    ## How to repair
    Find the true position in the training log and set both. If `global_step` was reset by an earlier resume, add what
    was lost. A checkpoint put together from two saves can't be repaired: use an older one.
    """

    id = "progress/counters-disagree"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each contradiction that the layout knows of, and one for the global step."""
        for found in checkpoint.contradictions:
            place = Place(path=found.path, key=found.key or None)
            yield Problem(message=found.sentence, place=place, help=_HELP, severity=found.severity)
        progress = checkpoint.progress
        recorded = next((r for r in checkpoint.recorded if r.name == "global_step"), None)
        if recorded is None or progress.global_step is None or progress.batches_done is None:
            raise FactUnavailable(
                "there are not two counters to compare: this needs a global step, and epoch, step and batches per epoch"
            )
        updates = updates_of(checkpoint)
        if not _agrees(progress, progress.global_step, updates):
            yield _problem(recorded, progress, updates)


def _agrees(progress: Progress, step: int, updates: int | None) -> bool:
    batches, slack = progress.batches_done or 0, 1
    if progress.accumulation > 1:  # an epoch's last, partial group of batches may make an update or not
        slack += progress.epoch or 0
        if abs(step - batches // progress.accumulation) <= slack:
            return True
    return any(abs(step - other) <= 1 for other in (batches, progress.expected_updates, updates) if other is not None)


def _problem(recorded: Recorded, progress: Progress, updates: int | None) -> Problem:
    others = [f"{count(progress.batches_done or 0, 'batch')}"]
    if progress.expected_updates not in (None, progress.batches_done):
        others.append(f"{progress.expected_updates:,} optimizer updates")
    said = f"{recorded.key} is {progress.global_step:,}, but epoch, step and batches per epoch add up to {' or '.join(others)}"
    if updates is not None:
        said += f", and the optimizer has made {count(updates, 'update')}"
    return Problem(
        message=said,
        place=Place(path=recorded.path, key=recorded.key),
        help=_HELP,
        data={
            "global_step": progress.global_step,
            "batches": progress.batches_done,
            "expected_updates": progress.expected_updates,
            "optimizer_updates": updates,
        },
    )


class Finished(Rule):
    """The planned end of training is reached: nothing is left to resume.

    ## What it checks
    The number of complete epochs, or the global step, against the planned number of epochs or steps, if the checkpoint
    records one (`num_epochs`, `max_steps`, `max_iters`, … in the state or in the options saved with it).

    ## Why it matters
    Nothing is wrong with such a checkpoint. But a job that resumes it ends at once, after it has waited for its GPUs.

    ## How to repair
    Nothing to repair. To train further, raise the planned total in the run's options; the learning-rate schedule may
    also have reached its end.
    """

    id = "progress/finished"
    severity = Severity.INFO
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        progress = checkpoint.progress
        if progress.planned_epochs is None and progress.planned_updates is None:
            raise FactUnavailable("no planned end of training is recorded")
        if progress.finished:
            by_epochs = progress.planned_epochs and progress.epoch and progress.epoch >= progress.planned_epochs
            name = "total_epochs" if by_epochs else "total_steps"
            plan = next((r for r in checkpoint.recorded if r.name == name), None)
            done = f"epoch {progress.epoch:,} of {progress.planned_epochs:,}" if by_epochs else _steps(progress)
            yield Problem(
                message=f"nothing is left to train: {done} is complete",
                place=Place(path=plan.path, key=plan.key) if plan else Place(),
                help="to train further, raise the planned total in the run's options",
                data={"epoch": progress.epoch, "planned_epochs": progress.planned_epochs,
                      "planned_updates": progress.planned_updates},
            )  # fmt: skip


def _steps(progress: Progress) -> str:
    done = progress.expected_updates if progress.global_step is None else progress.global_step
    return f"step {done or 0:,} of {progress.planned_updates or 0:,}"

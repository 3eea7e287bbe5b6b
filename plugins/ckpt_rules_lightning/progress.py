"""Where a Lightning checkpoint stands, and what `Trainer.fit(ckpt_path=…)` does from there."""

from __future__ import annotations

from ckpt_rules import Progress, ResumePlan
from ckpt_rules_lightning.loops import Loops

_FROM_START = "Lightning starts again at epoch 0 with the old optimizer: the file has no loop state"


def progress_of(loops: Loops | None, optimizers: int) -> Progress:
    """Progress in the common convention; epochs are 1-based.

    optimizers: how many the checkpoint keeps; manual optimization counts the steps of all of them together
    """
    if loops is None:
        return Progress(plan=ResumePlan(_FROM_START, 1, 0))
    epoch, step = max(loops.epochs["ready"], 1), loops.batches["processed"]
    total = _epoch_length(loops)
    automatic = loops.updates["completed"]
    manual = loops.manual["completed"]
    updates = automatic or (manual // optimizers if optimizers and manual % optimizers == 0 else None)
    complete = loops.epoch_complete
    done = loops.total["processed"]
    return Progress(
        epoch=epoch,
        step=0 if complete else step,
        total_batches=total,
        global_step=automatic or None,
        accumulation=_accumulation(done, automatic, epoch),
        batches_done=done,
        expected_updates=updates if automatic or optimizers == 1 else None,
        scheduler_steps=loops.scheduled.counts.get("completed") if automatic else loops.scheduled["completed"] or None,
        complete=complete,
        exact=bool(automatic) and optimizers == 1,
        plan=_plan(loops, epoch, step, total, automatic or manual),
    )


def _epoch_length(loops: Loops) -> int | None:
    """Batches in an epoch: of this one where it is complete, else of those before it, unless one of them was cut short."""
    if loops.epoch_complete:
        return loops.batches["ready"]
    finished, before = loops.epochs["ready"] - 1, loops.total["ready"] - loops.batches["ready"]
    if finished <= 0 or before <= 0 or before % finished:
        return None
    return before // finished if before // finished >= loops.batches["ready"] else None


def _accumulation(batches: int, updates: int, epochs: int) -> int:
    """Batches per update, where one number explains both counts; an epoch's last batches may make an update of their own."""
    if not updates or updates >= batches:
        return 1
    for size in range(batches // updates + 1, 0, -1):
        if batches // size <= updates <= batches // size + epochs:
            return size
    return 1


def _plan(loops: Loops, epoch: int, step: int, total: int | None, steps: int) -> ResumePlan:
    if loops.epoch_complete:
        also = ""
        if loops.loaders and loops.batches["completed"] < loops.batches["ready"]:
            # Saved within the last batch, the loader is at its end and not yet at the next beginning.
            also = ", but only with what its data loader has left after this epoch, which may be nothing"
        elif loops.epochs["processed"] == loops.epochs["ready"] and not loops.loaders:
            # Written at the end of the epoch, and not in its last batch.
            also = "; with max_steps, Lightning 2.6.6 first trains one more batch of the completed epoch"
        return ResumePlan(epoch=epoch + 1, after_epoch=True, trained=total, from_update=steps, also=also)
    if loops.ended:
        return _after_the_end(loops, epoch, step, total, steps)
    if step == 0:
        return ResumePlan(epoch=epoch, trained=total, from_update=steps)
    left = None if total is None else max(total - step, 0)
    of = "" if total is None else f" of {total:,}"
    if loops.loaders:
        return ResumePlan(
            f"epoch {epoch:,} continues after batch {step:,}{of}, where the dataloader left off",
            epoch,
            step,
            left,
            steps,
        )
    again = (
        ""
        if left is None
        else f": the first {left:,} batches of the data are trained, its last {step:,} are skipped (unless the dataset has no length)"
    )
    sentence = (
        f"epoch {epoch:,} continues after batch {step:,}{of}, but the dataloader state was not saved, so the data start at their "
        f"first batch{again}"
    )
    return ResumePlan(sentence, epoch, 0, left, steps)


def _after_the_end(loops: Loops, epoch: int, step: int, total: int | None, steps: int) -> ResumePlan:
    """Training stopped within an epoch, and its loops were closed: for Lightning the epoch is over."""
    of = "" if total is None else f" of {total:,}"
    data = "where the data loader left off" if loops.loaders else "and with the data from their start"
    sentence = (
        f"training had ended within epoch {epoch:,}, after batch {step:,}{of}; a resume treats that epoch as "
        f"complete and starts epoch {epoch + 1:,} at its first batch; with max_steps, Lightning 2.6.6 starts it "
        f"after batch {step:,}, {data}"
    )
    return ResumePlan(sentence, epoch + 1, 0, total, steps)

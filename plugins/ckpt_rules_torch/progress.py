"""Progress of a plain checkpoint: valid counters, read as the optimizer and scheduler bear out, and the plan to resume."""

from __future__ import annotations

from dataclasses import replace

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Progress,
    ResumePlan,
    is_count,
    sound_counts,
    updates_of,
)
from ckpt_rules_torch import names
from ckpt_rules_torch.readings import Counters, Reading, Witnesses, by_epochs, by_updates


def read_progress(checkpoint: Checkpoint) -> Progress:
    """FactUnavailable where a counter is impossible (blocked: a rule reports it) or none is recorded."""
    recorded = checkpoint.recorded
    witnesses = _witnesses(checkpoint)
    values = sound_counts(recorded, witnesses.updates)
    if not {"epoch", "step", "global_step"} & values.keys():
        raise FactUnavailable("no progress is recorded: neither an epoch nor a step")
    keys = {r.name: r.key.rpartition(".")[2] for r in recorded}
    counters = Counters(
        values.get("epoch"), values.get("step"), values.get("total_batches"), values.get("global_step"),
        values.get("gradient_accumulation"), ambiguous=keys.get("step") in names.AMBIGUOUS_STEP,
    )  # fmt: skip
    progress = _progress(counters, witnesses, values.get("total_epochs"), values.get("total_steps"))
    return replace(progress, plan=_plan(progress, witnesses.updates))


def _witnesses(checkpoint: Checkpoint) -> Witnesses:
    try:
        last_epoch = checkpoint.scheduler.last_epoch
    except FactUnavailable:
        last_epoch = None
    return Witnesses(updates_of(checkpoint), int(last_epoch) if is_count(last_epoch) else None)


def _progress(c: Counters, witnesses: Witnesses, epochs: int | None, updates: int | None) -> Progress:
    planned = Progress(planned_epochs=epochs or None, planned_updates=updates or None, global_step=c.global_step)
    if c.epoch is not None and c.step is not None and c.total_batches is not None:
        return _within_epoch(planned, c, by_epochs(c, witnesses), witnesses)
    reading = by_updates(c, witnesses)
    local = c.step if reading is None or c.global_step is not None else None
    progress = replace(planned, epoch=c.epoch, step=local, total_batches=c.total_batches)
    if reading is None:
        return progress
    return replace(
        progress,
        global_step=reading.batches,
        accumulation=reading.accumulation,
        expected_updates=reading.expected(witnesses.updates),
        notes=(reading.note,) if reading.note else (),
    )


def _within_epoch(planned: Progress, c: Counters, reading: Reading, witnesses: Witnesses) -> Progress:
    started = reading.epoch or 0
    return replace(
        planned,
        epoch=max(started, 1),
        step=c.step,
        total_batches=c.total_batches,
        accumulation=reading.accumulation,
        batches_done=reading.batches,
        expected_updates=reading.expected(witnesses.updates),
        complete=c.step == 0 and started > 0,
        notes=(reading.note,) if reading.note else (),
    )


def _plan(progress: Progress, updates: int | None) -> ResumePlan | None:
    done = progress.expected_updates if updates is None else updates
    if progress.finished:
        return ResumePlan(f"nothing is left to train: {_end(progress)} is reached", from_update=done)
    if progress.batches_done is not None and progress.epoch is not None:
        return _plan_by_epoch(progress, done)
    if done is None:
        return None
    beside = f"; epoch {progress.epoch:,} is recorded, but not how far it got" if progress.epoch is not None else ""
    return ResumePlan(from_update=done, unit="optimizer update", also=beside)


def _end(progress: Progress) -> str:
    if progress.planned_epochs and progress.epoch is not None and progress.epoch >= progress.planned_epochs:
        return f"the planned end of {progress.planned_epochs:,} epochs"
    return f"the planned end of {progress.planned_updates:,} steps"


def _plan_by_epoch(progress: Progress, done: int | None) -> ResumePlan:
    epoch, step, total = progress.epoch or 1, progress.step or 0, progress.total_batches or 0
    if progress.complete:
        return ResumePlan(epoch=epoch + 1, after_epoch=True, trained=total, from_update=done)
    if step == 0:
        return ResumePlan("training starts from the beginning, with epoch 1", 1, 0, total, done)
    skipped = f"batches 0 to {step - 1:,} are skipped" if step > 1 else "batch 0 is skipped"
    trained = f"{step:,} to {total - 1:,} are trained" if step < total - 1 else f"{step:,} is trained"
    return ResumePlan(f"epoch {epoch:,} continues: {skipped}, {trained}", epoch, step, total - step, done)

"""mmengine's checkpoints: `meta` says where training stands, `message_hub` holds the logs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    DictCheckpoint,
    FactUnavailable,
    Field,
    Newest,
    Progress,
    ResumePlan,
    SchedulerState,
    Severity,
    TrainingState,
    inside,
    is_count,
    options,
)

_ACCUMULATED = re.compile(r"\baccumulative_counts=(\d+)")
_BY_EPOCHS = re.compile(r"\btrain_cfg = dict\([^()]*(?:\bby_epoch=True\b|\btype='EpochBasedTrainLoop')")
_SCALER = "optimizer.loss_scaler"
_NO_SCALER = "the configuration says AmpOptimWrapper, and without it the loss scale starts again from its first value"
_BY_ITERATIONS = re.compile(r"iter_\d+\.pth")


class MMEngine(DictCheckpoint):
    """Loops by epochs and by iterations; the latter leave the epoch at 0."""

    name = "mmengine"
    title = "mmengine checkpoint"
    keys = ("meta", "message_hub")
    file_names = re.compile(r"(?:epoch|iter)_\d+\.pth")
    newest = Newest(
        "last_checkpoint",
        without_target="mmengine stops: it can't load what the file names",
        without_pointer="mmengine with --resume and no file named finds no save, and starts from scratch with one line in the log",
        of_a_run=re.compile(r"(?:epoch|iter)_\d+\.pth|\d{8}_\d{6}"),
    )
    weight_keys = ("state_dict",)
    counters: ClassVar = {"epoch": "meta.epoch", "global_step": "meta.iter"}
    named = (
        (re.compile(r"epoch_(\d{1,18})\.pth"), "meta.epoch"),
        (re.compile(r"iter_(\d{1,18})\.pth"), "meta.iter"),
    )
    fields = (
        Field(
            "weights",
            ("state_dict",),
            Severity.ERROR,
            "mmengine takes the whole dictionary for weights, and loads none of them",
        ),
        Field("optimizer", ("optimizer",), Severity.ERROR, "mmengine continues with a new optimizer, silently"),
        Field("schedulers", ("param_schedulers",), Severity.WARNING, "mmengine starts each schedule again, silently"),
        Field("meta", ("meta",), Severity.ERROR, "mmengine stops with KeyError: 'meta'"),
        Field("message_hub", ("message_hub",), Severity.ERROR, "mmengine stops with KeyError: 'message_hub'"),
    )
    own_loader = ("*.pth",)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary; and the gradient scaler that the wrapper of the optimizer keeps inside of its state."""
        state = super().state(checkpoint)
        scaler = inside(state.values, _SCALER)
        return state if scaler is None else TrainingState(state.path, {**state.values, _SCALER: scaler}, state.fields)

    def scaled(self, values: Mapping[object, object]) -> Field | None:
        """AmpOptimWrapper scales its loss in float16, the default, and restores the scale where there is one."""
        settings = str(inside(values, "meta.cfg"))
        in_float16 = "AmpOptimWrapper" in settings and "bfloat16" not in settings
        return Field("scaler", (_SCALER,), Severity.WARNING, _NO_SCALER) if in_float16 else None

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """Those of mmengine are not torch schedulers: `contradictions` compares what they count."""
        raise FactUnavailable("mmengine's schedulers are not torch's")

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """In iterations, several to an update where the configuration in the file says so."""
        epoch, done = counts.get("epoch", 0), counts.get("global_step")
        settings = str(inside(checkpoint.state.values, "meta.cfg"))
        found = _ACCUMULATED.search(settings)
        size = max(int(found[1]), 1) if found else 1
        updates = None if done is None else done // size
        by_epochs = bool(epoch or _BY_EPOCHS.search(settings))
        within = by_epochs and bool(_BY_ITERATIONS.fullmatch(checkpoint.state.path))
        return Progress(
            epoch=epoch + 1 if within else epoch or None,
            step=0 if epoch and not within else None,
            global_step=done,
            accumulation=size,
            expected_updates=updates,
            complete=by_epochs and not within,
            plan=_plan(epoch if by_epochs else None, done or 0, updates, within=within),
        )

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """What the file's name, schedulers and log count, against `meta`."""
        return (*super().contradictions(checkpoint), *_against_meta(checkpoint))


def _plan(epoch: int | None, done: int, updates: int | None, *, within: bool) -> ResumePlan:
    """What a resume does: a loop over epochs knows no place within one, whatever the interval of its saves."""
    if epoch is None:
        sentence = (
            f"training continues after iteration {done:,}; by iterations, it loads as many batches and discards them"
        )
        return ResumePlan(sentence, from_update=updates)
    again = ": what was trained of it before the save is trained again" if within else ""
    return ResumePlan(epoch=epoch + 1, from_update=updates, also=f", and counts from iteration {done:,}{again}")


def _against_meta(checkpoint: Checkpoint) -> Iterator[Contradiction]:
    state = checkpoint.state
    counts = {name: inside(state.values, f"meta.{name}") for name in ("epoch", "iter")}
    for index, scheduler in enumerate(_schedulers(state.values.get("param_schedulers"))):
        unit = "epoch" if scheduler.get("by_epoch") is True else "iter"
        yield from _compared(
            state.path, f"param_schedulers[{index}]._global_step", scheduler.get("_global_step"), unit, counts
        )
    for unit in counts:
        key = f"message_hub.runtime_info.{unit}"
        yield from _compared(state.path, key, inside(state.values, key), unit, counts)


def _compared(path: str, key: str, value: object, unit: str, counts: Mapping[str, object]) -> Iterator[Contradiction]:
    """A file is written before or after the others count, so that they may differ by one."""
    meant = counts[unit]
    if is_count(value) and is_count(meant) and abs(value - meant) > 1:
        yield Contradiction(path, key, f"{key} is {int(value):,}, and meta.{unit} is {int(meant):,}")


def _schedulers(value: object) -> list[Mapping[object, object]]:
    return [options(each) for each in value] if isinstance(value, list) else []

"""detectron2's checkpoints, written by fvcore: `iteration` counts from 0, and is done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    DictCheckpoint,
    Entry,
    Field,
    Newest,
    Progress,
    Recorded,
    ResumePlan,
    Severity,
    TrainingState,
    inside,
    is_count,
)

_PARTS = frozenset({"optimizer", "scheduler", "iteration", "trainer"})
_FEWEST = 2
_TRAINER = (
    Field("weights", ("model",), Severity.ERROR, "detectron2 stops with KeyError: 'model'"),
    Field("optimizer", ("trainer._trainer.optimizer",), Severity.ERROR, "detectron2 stops with KeyError: 'optimizer'"),
    Field("scheduler", ("trainer.hooks.LRScheduler",), Severity.WARNING, "the schedule starts again, silently"),
    Field("scaler", ("trainer._trainer.grad_scaler",)),
    Field("iteration", ("trainer.iteration",), Severity.ERROR, "detectron2 stops with KeyError: 'iteration'"),
)
"""What belongs in the file of a DefaultTrainer, which saves itself as a whole."""


class Detectron2(DictCheckpoint):
    """`model_0004999.pth` holds iteration 4,999, the last of 5,000."""

    name = "detectron2"
    title = "detectron2 checkpoint"
    keys = ("model", "optimizer", "scheduler", "trainer", "iteration")
    file_names = re.compile(r"model_(?:\d{7}|final)\.pth")
    newest = Newest(
        "last_checkpoint",
        without_target="detectron2 stops: it asserts that the file exists",
        without_pointer="detectron2 with --resume finds no save, and starts from the initial weights with one line "
        "in the log",
        of_a_run=re.compile(r"model_\d{7}\.pth|metrics\.json"),
    )
    weight_keys = ("model",)
    counters: ClassVar = {"global_step": "iteration"}
    named = ((re.compile(r"model_(\d{7})\.pth"), "iteration"),)
    fields = (
        Field("weights", ("model",), Severity.ERROR, "detectron2 stops with KeyError: 'model'"),
        Field(
            "optimizer",
            ("optimizer",),
            Severity.ERROR,
            "detectron2 continues with a new optimizer, and a line in its log",
        ),
        Field("scheduler", ("scheduler",), Severity.WARNING, "the schedule starts again, with a line in the log"),
        Field("scaler", ("grad_scaler",)),
        Field("iteration", ("iteration",), Severity.ERROR, "detectron2 starts again at iteration 0, silently"),
    )

    def fits(self, file: Entry, values: Mapping[object, object]) -> bool:
        """By the usual name, and weights beside two of four parts: others write these keys as well."""
        return (
            bool(self.file_names.fullmatch(file.name)) and "model" in values and len(_PARTS & values.keys()) >= _FEWEST
        )

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary; what a trainer keeps inside of itself is found under the keys that lead to it."""
        state = super().state(checkpoint)
        if "trainer" not in state.values:
            return state
        deeper: dict[object, object] = {
            key: inside(state.values, key) for field in _TRAINER for key in field.keys if "." in key
        }
        deeper = {key: value for key, value in deeper.items() if value is not None}
        return TrainingState(state.path, {**state.values, **deeper}, _TRAINER)

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """That of the trainer, where it was saved: a resume reads no other."""
        state = checkpoint.state
        key = "trainer.iteration" if "trainer" in state.values else "iteration"
        value = state.values.get(key)
        return () if value is None else (Recorded("global_step", value, state.path, key),)

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """An update for each iteration."""
        iteration = counts["global_step"]
        sentence = f"iteration {iteration:,}, counted from 0, is done; training continues with {iteration + 1:,}"
        return Progress(
            global_step=iteration,
            expected_updates=iteration + 1,
            plan=ResumePlan(sentence, from_update=iteration + 1),
        )

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """The iteration that fvcore writes, against that of the trainer, and the one in the file's name."""
        state, found = checkpoint.state, super().contradictions(checkpoint)
        whole, inner = state.values.get("iteration"), state.values.get("trainer.iteration")
        if not (is_count(whole) and is_count(inner)) or whole == inner:
            return found
        message = f"trainer.iteration, which a resume uses, is {int(inner):,}, but iteration is {int(whole):,}"
        return (*found, Contradiction(state.path, "trainer.iteration", message))

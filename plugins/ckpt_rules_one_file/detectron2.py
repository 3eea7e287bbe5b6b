"""detectron2's checkpoints, written by fvcore: `iteration` counts from 0, and is done."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, Entry, Field, Progress, ResumePlan
from ckpt_rules_one_file.dialect import Dialect, Values

_PARTS = frozenset({"optimizer", "scheduler", "iteration"})
_FEWEST = 2


class Detectron2(Dialect):
    """`model_0004999.pth` holds iteration 4,999, the last of 5,000."""

    name = "detectron2"
    title = "detectron2 checkpoint"
    signs = ("model", "optimizer", "scheduler", "iteration")
    names = re.compile(r"model_(?:\d{7}|final)\.pth")
    pointer = "last_checkpoint"
    without_target = "detectron2 stops, for it asserts that the file is there"
    weight_keys = ("model",)
    counters = (("global_step", "iteration"),)
    expected = (
        Field("weights", ("model",), "error", "detectron2 stops with KeyError: 'model'"),
        Field("optimizer", ("optimizer",), "error", "detectron2 goes on with a new optimizer, and a line in its log"),
        Field("scheduler", ("scheduler",), "warning", "the schedule starts again, with a line in the log"),
        Field("scaler", ("grad_scaler",)),
        Field("iteration", ("iteration",), "error", "detectron2 starts again at iteration 0, without a word"),
    )

    def fits(self, file: Entry, values: Values) -> bool:
        """By the usual name, and weights beside two of three parts: others write these keys as well."""
        return bool(self.names.fullmatch(file.name)) and "model" in values and len(_PARTS & values.keys()) >= _FEWEST

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """An update for each iteration."""
        iteration = counts["global_step"]
        sentence = f"iteration {iteration:,}, counted from 0, is done; training goes on with {iteration + 1:,}"
        return Progress(
            global_step=iteration,
            expected_updates=iteration + 1,
            plan=ResumePlan(sentence, from_update=iteration + 1),
        )

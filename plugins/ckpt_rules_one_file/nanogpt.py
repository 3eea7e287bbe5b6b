"""nanoGPT's `ckpt.pt`: the learning rate follows from `iter_num`, and data are drawn at random."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    DictCheckpoint,
    FactUnavailable,
    Field,
    ModelConfig,
    Progress,
    ResumePlan,
    Severity,
    options,
)

_NO_SCALER = "config says float16, but nanoGPT saves no gradient scaler: the loss scale restarts from 65,536"


class NanoGPT(DictCheckpoint):
    """`iter_num` updates are done; neither scheduler, scaler nor generators are kept."""

    name = "nanogpt"
    title = "nanoGPT checkpoint"
    keys = ("model_args", "iter_num")
    file_names = re.compile(r"ckpt\.pt")
    usual = "ckpt.pt"
    weight_keys = ("model",)
    counters: ClassVar = {"global_step": "iter_num", "total_steps": "config.max_iters"}
    fields = (
        Field("weights", ("model",), Severity.ERROR, "nanoGPT stops with KeyError: 'model'"),
        Field("optimizer", ("optimizer",), Severity.ERROR, "nanoGPT stops with KeyError: 'optimizer'"),
        Field("best_val_loss", ("best_val_loss",), Severity.ERROR, "nanoGPT stops with KeyError: 'best_val_loss'"),
    )

    def scaled(self, values: Mapping[object, object]) -> Field | None:
        """On a GPU, training in float16 scales its loss, and the scale is in no file."""
        settings = options(values.get("config"))
        in_float16 = settings.get("dtype") == "float16" and str(settings.get("device")).startswith("cuda")
        return Field("scaler", ("scaler",), Severity.INFO, _NO_SCALER) if in_float16 else None

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """`model_args`."""
        state = checkpoint.state
        values = options(state.values.get("model_args"))
        return ModelConfig(state.path, "model_args", {k: v for k, v in values.items() if isinstance(k, str)})

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """The file is written before the update of its number."""
        if "global_step" not in counts:
            raise FactUnavailable("iter_num is not a count of iterations")
        done, planned = counts["global_step"], counts.get("total_steps")
        sentence = f"training continues with iteration {done:,}, with batches drawn at random: nanoGPT keeps no generator's state"
        return Progress(
            global_step=done,
            expected_updates=done,
            planned_updates=planned,
            plan=ResumePlan(sentence, from_update=done),
        )

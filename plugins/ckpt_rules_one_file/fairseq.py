"""fairseq's checkpoints: the position in the data is that of `train_iterator`, the updates are those of the last optimizer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import Checkpoint, DictCheckpoint, Field, Progress, ResumePlan, Severity

_ITERATOR = "extra_state.train_iterator"


class Fairseq(DictCheckpoint):
    """Epochs count from 1; at the end of one, the next is written, at 0."""

    name = "fairseq"
    title = "fairseq checkpoint"
    keys = ("optimizer_history", "extra_state")
    file_names = re.compile(r"checkpoint(?:_last|_best|\d+|_\d+_\d+)\.pt")
    weight_keys = ("model",)
    counters: ClassVar = {
        "epoch": f"{_ITERATOR}.epoch",
        "step": f"{_ITERATOR}.iterations_in_epoch",
        "global_step": "optimizer_history.-1.num_updates",
    }
    named = ((re.compile(r"checkpoint_\d+_(\d{1,18})\.pt"), "optimizer_history.-1.num_updates"),)
    fields = (
        Field("weights", ("model",), Severity.ERROR, "fairseq stops with KeyError: 'model'"),
        Field(
            "optimizer",
            ("last_optimizer_state",),
            Severity.ERROR,
            "fairseq builds a new optimizer and counts updates and learning rate from the start, silently",
        ),
        Field("history", ("optimizer_history",), Severity.ERROR, "fairseq stops with KeyError: 'optimizer_history'"),
        Field("extra_state", ("extra_state",), Severity.ERROR, "fairseq stops with KeyError: 'extra_state'"),
    )
    own_loader = ("*.pt",)

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """In batches of the epoch under way, and in updates."""
        epoch, step, updates = counts.get("epoch"), counts.get("step", 0), counts.get("global_step")
        within = f"epoch {epoch or 1:,} continues after batch {step:,}" if step else ""
        plan = ResumePlan(within, epoch or 1, step, from_update=updates)
        return Progress(epoch=epoch, step=step, global_step=updates, expected_updates=updates, plan=plan)

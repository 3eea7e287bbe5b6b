"""timm's checkpoints: `epoch` is the last one that was trained, counted from 0; `recovery` files are written within one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import Checkpoint, Contradiction, DictCheckpoint, Field, Progress, ResumePlan, Severity, options

_RECOVERY = re.compile(r"recovery-(\d+)-(\d+)\..+")
_NO_SCALER = "the arguments say amp in float16, and without it the loss scale starts again from 65,536"
_COUNTED_FROM_NEXT = 2
"""Version since which `epoch` is the epoch that was trained, not the one to come."""


class Timm(DictCheckpoint):
    """The learning rate follows from the epoch, so no scheduler is kept."""

    name = "timm"
    title = "timm checkpoint"
    keys = ("epoch", "arch", "state_dict", "version")
    file_names = re.compile(r"(?:last|model_best|checkpoint-\d+|recovery-\d+-\d+|milestone-\d+)\.pth\.tar")
    usual = "last.pth.tar"
    weight_keys = ("state_dict",)
    counters: ClassVar = {"epoch": "epoch", "total_epochs": "args.epochs"}
    named = ((re.compile(r"(?:checkpoint-(?=\d+\.)|recovery-)(\d{1,18})(?:-\d+)?\.pth\.tar"), "epoch"),)
    fields = (
        Field("weights", ("state_dict",), Severity.ERROR, "timm stops: it takes the whole dictionary for weights"),
        Field("optimizer", ("optimizer",), Severity.ERROR, "timm continues with a new optimizer, silently"),
        Field("scaler", ("amp_scaler",)),
        Field("config", ("args",)),
    )
    own_loader = ("*.pth.tar",)

    def scaled(self, values: Mapping[object, object]) -> Field | None:
        """On a GPU, training with `--amp` in float16, the default, scales its loss."""
        arguments = options(values.get("args"))
        on_gpu = str(arguments.get("device", "cuda")).startswith("cuda")
        in_float16 = arguments.get("amp") is True and arguments.get("amp_dtype", "float16") == "float16"
        return Field("scaler", ("amp_scaler",), Severity.WARNING, _NO_SCALER) if in_float16 and on_gpu else None

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Older versions counted on before they saved, but not in the name."""
        return super().contradictions(checkpoint) if _counts_what_was_trained(checkpoint) else ()

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """A resume begins with the epoch after the one on record, whatever the file."""
        if "epoch" not in counts:
            return Progress()
        first = counts["epoch"] + (1 if _counts_what_was_trained(checkpoint) else 0)
        planned, recovery = counts.get("total_epochs"), _RECOVERY.fullmatch(checkpoint.state.path)
        if recovery:
            batch = int(recovery[2])
            sentence = (
                f"the file was written at batch {batch:,} of epoch {first:,}, and training starts epoch "
                f"{first + 1:,}: the rest of epoch {first:,} is not trained"
            )
            return Progress(epoch=first, step=batch, planned_epochs=planned, plan=ResumePlan(sentence, first + 1))
        plan = ResumePlan(epoch=first + 1, after_epoch=True)
        return Progress(epoch=first, step=0, complete=True, planned_epochs=planned, plan=plan)


def _counts_what_was_trained(checkpoint: Checkpoint) -> bool:
    version = checkpoint.state.values.get("version")
    return isinstance(version, int) and version >= _COUNTED_FROM_NEXT

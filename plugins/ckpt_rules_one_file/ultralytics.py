"""ultralytics' `last.pt` and `best.pt`: the model is a pickled module; `epoch` is the last one trained, counted from 0."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    DictCheckpoint,
    FactUnavailable,
    Field,
    Opaque,
    Progress,
    ResumePlan,
    Severity,
    TensorInfo,
    TrainingState,
    WeightFile,
    Weights,
    options,
)

_STRIPPED = -1
_DEEPEST = 32
_UNSCALED = ("cpu", "mps")
_NO_SCALER = (
    "train_args says amp, and without it the loss scale starts again from 65,536, so that the first updates may be skipped "
    "(ultralytics before 8.3.203 keeps none)"
)


class Ultralytics(DictCheckpoint):
    """After training, optimizer and counters are stripped from both files."""

    name = "ultralytics"
    title = "ultralytics checkpoint"
    keys = ("train_args", "epoch", "model")
    file_names = re.compile(r"(?:last|best|epoch\d+)\.pt")
    usual = "last.pt"
    weight_keys = ()
    counters: ClassVar = {"epoch": "epoch", "total_epochs": "train_args.epochs"}
    named = ((re.compile(r"epoch(\d{1,18})\.pt"), "epoch"),)
    fields = (
        Field("optimizer", ("optimizer",), Severity.ERROR, "ultralytics continues with a new optimizer, silently"),
        Field("scaler", ("scaler",)),
        Field("epoch", ("epoch",), Severity.ERROR, "ultralytics takes it for the end of training, and resumes nothing"),
        Field("config", ("train_args",)),
    )
    own_loader = ("*.pt",)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary; FactUnavailable where it was stripped."""
        state = super().state(checkpoint)
        if is_stripped(state):
            raise FactUnavailable(f"{state.path} was stripped for inference: it holds no training state")
        return state

    def scaled(self, values: Mapping[object, object]) -> Field | None:
        """On a GPU, training with `amp` scales its loss."""
        arguments = options(values.get("train_args"))
        on_gpu = not str(arguments.get("device")).lower().startswith(_UNSCALED)
        return (
            Field("scaler", ("scaler",), Severity.WARNING, _NO_SCALER)
            if arguments.get("amp") is True and on_gpu
            else None
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The tensors of the pickled module: of the averaged one, while training, and of the model in a stripped file."""
        path = self.path(checkpoint)
        values = options(checkpoint.files.contents(path))
        for key in ("ema", "model"):
            tensors = dict(_tensors(values.get(key)))
            if tensors:
                problems = checkpoint.files.torch_file(path).problems
                return Weights((WeightFile(path, "torch", tensors, key, problems=problems),))
        raise FactUnavailable(f"{path} holds no module with weights")

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """Files are written at the end of an epoch."""
        if "epoch" not in counts:
            return Progress()
        epoch, planned = counts["epoch"] + 1, counts.get("total_epochs")
        plan = ResumePlan(epoch=epoch + 1, after_epoch=True)
        if planned and epoch >= planned:
            sentence = f"epoch {epoch:,} of {planned:,} is complete; ultralytics stops, for nothing is left to train"
            plan = ResumePlan(sentence, epoch + 1)
        return Progress(epoch=epoch, step=0, complete=True, planned_epochs=planned, plan=plan)


def _tensors(module: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, TensorInfo]]:
    """Parameters and buffers of a pickled module and of those inside it, by the names of its `state_dict`."""
    if not isinstance(module, Opaque) or depth > _DEEPEST:
        return
    state = options(module)
    for kind in ("_parameters", "_buffers"):
        for name, tensor in options(state.get(kind)).items():
            if isinstance(tensor, TensorInfo):
                yield f"{prefix}{name}", tensor
    for name, child in options(state.get("_modules")).items():
        yield from _tensors(child, f"{prefix}{name}.", depth + 1)


def stripped_file(checkpoint: Checkpoint) -> str:
    """The path of a file that was stripped; FactUnavailable where there is none."""
    path = Ultralytics().path(checkpoint)
    values = checkpoint.files.contents(path)
    if isinstance(values, Mapping) and is_stripped(TrainingState(path, values)):
        return path
    raise FactUnavailable("nothing was stripped")


def is_stripped(state: TrainingState) -> bool:
    """Whether training was ended, and what a resume needs thrown away."""
    return state.values.get("epoch") == _STRIPPED and state.values.get("optimizer") is None

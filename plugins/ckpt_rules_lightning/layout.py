"""Lightning's layout: recognising a file, and where its facts are found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, NoReturn

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    Entry,
    EntryKind,
    FactUnavailable,
    Field,
    Layout,
    Match,
    ModelConfig,
    OptimizerState,
    Progress,
    Recorded,
    RngState,
    ScalerState,
    SchedulerState,
    TrainingState,
    Weights,
    is_count,
    state_dicts,
    weights_in,
)
from ckpt_rules_lightning.loops import contradictions, read_loops
from ckpt_rules_lightning.progress import progress_of

_VERSION = "pytorch-lightning_version"
_KEYS = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "hyper_parameters")
_NAME = re.compile(r"(?:.*epoch=\d+.*|.*step=\d+.*|last(?:-v\d+)?)\.ckpt")
_SCALERS = ("MixedPrecision", "NativeMixedPrecisionPlugin", "MixedPrecisionPlugin", "native_amp_scaling_state")
_CERTAIN, _LIKELY, _BY_NAME = 93, 75, 40
_ONLY_WEIGHTS = (
    "Lightning stops with 'Trying to restore {} state but checkpoint contains only the model', as after save_weights_only; to "
    "load the weights, verify with the ruleset inference"
)
_FIELDS = (
    Field("version", (_VERSION,), "error", f"Lightning stops with KeyError: '{_VERSION}'"),
    Field("weights", ("state_dict",), "error", "Lightning stops with KeyError: 'state_dict'"),
    Field("loops", ("loops",), "error", "Lightning starts again at epoch 0 with the old optimizer, without a word"),
    Field("optimizer", ("optimizer_states",), "error", _ONLY_WEIGHTS.format("optimizer")),
    Field("scheduler", ("lr_schedulers",), "warning", _ONLY_WEIGHTS.format("learning rate scheduler")),
    Field("scaler", _SCALERS),
    Field("epoch", ("epoch",)),
    Field("global_step", ("global_step",)),
)


class Lightning(Layout):
    """One `.ckpt` file, by itself or alone in its directory."""

    name = "lightning"
    title = "PyTorch Lightning checkpoint"
    one_file: ClassVar[bool] = True

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By the keys of the only file that can be meant; a damaged one by its name."""
        file = checkpoint.fact(_only_file)
        if file is None:
            return None
        try:
            values = checkpoint.contents(file.path)
        except FactUnavailable:
            return Match(_BY_NAME, (file.path,)) if _NAME.fullmatch(file.name) else None
        if not isinstance(values, Mapping):
            return None
        found = tuple(f"'{key}' in {file.path}" for key in (_VERSION, *_KEYS) if key in values)
        if _VERSION in values:
            return Match(_CERTAIN, found[:4])
        return Match(_LIKELY, found[:4]) if len(found) > 2 and "loops" in values else None

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """`state_dict`."""
        return weights_in(checkpoint, _path(checkpoint), ("state_dict",))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary in the file."""
        path = _path(checkpoint)
        values = checkpoint.contents(path)
        if not isinstance(values, Mapping):
            raise FactUnavailable(f"{path} holds no dictionary", path=path, blocked=True)
        return TrainingState(path, values, _FIELDS)

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """The only optimizer; FactUnavailable where there are several, or training uses none."""
        state = checkpoint.state
        if state.get("optimizer") == []:
            raise FactUnavailable("training uses no optimizer")
        return super().optimizer(checkpoint)

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Each of them."""
        state = checkpoint.state
        values = state.get("optimizer")
        if not isinstance(values, list) or len(values) < 2:
            return (checkpoint.optimizer,)
        key = state.key_of("optimizer")
        return tuple(state_dicts.optimizer(v, state.path, f"{key}[{i}]") for i, v in enumerate(values))

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """The only scheduler; FactUnavailable where there are several, or training uses none."""
        if checkpoint.state.get("scheduler") == []:
            raise FactUnavailable("training uses no scheduler")
        return super().scheduler(checkpoint)

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """What the precision plugin kept, which only fp16 has."""
        return super().scaler(checkpoint)

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """Lightning keeps none."""
        self._none("random-number state")

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Lightning keeps the arguments of the module, which describe no known architecture."""
        self._none("configuration of a known architecture")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """`epoch`, counted from 0, and `global_step`, as they are written at the top."""
        state = checkpoint.state
        named = (("epoch", "epoch"), ("global_step", "global_step"))
        return tuple(Recorded(n, state.values[k], state.path, k) for n, k in named if state.values.get(k) is not None)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """From the loops; FactUnavailable where a counter at the top is no count."""
        state = checkpoint.state
        for counter in checkpoint.recorded:
            if not is_count(counter.value):
                raise FactUnavailable(f"{counter.key} in {state.path} makes no sense", path=state.path, blocked=True)
        held = state.get("optimizer")
        return progress_of(read_loops(state.values), len(held) if isinstance(held, list) else 0)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """The counters of the loops among each other, and against those at the top."""
        state = checkpoint.state
        loops = read_loops(state.values)
        return tuple(contradictions(state.path, state.values, loops)) if loops else ()

    def _none(self, what: str) -> NoReturn:
        raise FactUnavailable(f"the layout {self.name} holds no {what}")


def _only_file(checkpoint: Checkpoint) -> Entry | None:
    """The one torch file at the top; with several `.ckpt` files the directory is a run."""
    files = [e for e in checkpoint.listing if "/" not in e.path and e.kind is not EntryKind.DIRECTORY]
    checkpoints = [e for e in files if e.suffix == ".ckpt"]
    others = [e for e in checkpoint.files_in("torch") if "/" not in e.path]
    found = checkpoints or others
    return found[0] if len(found) == 1 and not any(e.suffix == ".safetensors" for e in files) else None


def _path(checkpoint: Checkpoint) -> str:
    file = checkpoint.fact(_only_file)
    if file is None:
        raise FactUnavailable("there is no Lightning checkpoint file")
    return file.path

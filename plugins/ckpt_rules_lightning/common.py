"""What Lightning's file and its two kinds of directories share: the counters, the schedulers, the scaler."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    DataLoaders,
    FactUnavailable,
    Field,
    Layout,
    ModelConfig,
    Progress,
    Recorded,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    TrainingState,
    dictionary,
    is_count,
    state_dicts,
)
from ckpt_rules_lightning.loop_fields import broken_fields
from ckpt_rules_lightning.loops import LOADERS, Loops, agrees, contradictions, of_loops, read_loops
from ckpt_rules_lightning.progress import progress_of

VERSION = "pytorch-lightning_version"
KEYS = (VERSION, "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "hyper_parameters")
NAME = re.compile(r"(?:.*epoch=\d+.*|.*step=\d+.*|last(?:-v\d+)?)\.ckpt")
_SEVERAL = 2
SCALERS = ("MixedPrecision", "NativeMixedPrecisionPlugin", "MixedPrecisionPlugin", "native_amp_scaling_state")
ONLY_WEIGHTS = (
    "Lightning stops with 'Trying to restore {} state but checkpoint contains only the model', as after save_weights_only; to "
    "load the weights, verify with the ruleset inference"
)
FIELDS = (
    Field("version", (VERSION,), Severity.ERROR, f"Lightning stops with KeyError: '{VERSION}'"),
    Field(
        "loops",
        ("loops",),
        Severity.ERROR,
        "Lightning starts again at epoch 0 with the old optimizer, silently",
        inside=("fit_loop", "epoch_progress"),
    ),
    Field("scheduler", ("lr_schedulers",), Severity.WARNING, ONLY_WEIGHTS.format("learning rate scheduler")),
    Field("scaler", SCALERS),
    Field("epoch", ("epoch",)),
    Field("global_step", ("global_step",)),
)


class LightningState(Layout):
    """A layout whose training state is the dictionary of Lightning's `dump_checkpoint`, or what is left of it."""

    def held(self, checkpoint: Checkpoint) -> int:
        """How many optimizers the checkpoint keeps."""
        raise NotImplementedError

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """The only scheduler; FactUnavailable where there are several, or training uses none."""
        state = checkpoint.state
        if state.get("scheduler") == []:
            loops = read_loops(state.values)
            made = loops.scheduled["completed"] if loops else 0
            if made:
                message = f"lr_schedulers is empty, although schedulers have made {made:,} step{'s' if made > 1 else ''}: Lightning restores none"
                raise FactUnavailable(message, path=state.path, blocked=True)
            raise FactUnavailable("training uses no scheduler")
        return super().scheduler(checkpoint)

    def schedulers(self, checkpoint: Checkpoint) -> tuple[SchedulerState, ...]:
        """Each of them."""
        state = checkpoint.state
        values = state.get("scheduler")
        if not isinstance(values, list) or len(values) < _SEVERAL:
            return (checkpoint.scheduler,)
        key = state.key_of("scheduler")
        return tuple(state_dicts.scheduler(v, state.path, f"{key}[{i}]") for i, v in enumerate(values))

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
        """`epoch`, counted from 0, and `global_step`: at the top where the loops, which alone are read, say the same."""
        state = checkpoint.state
        return tuple(_recorded(state, read_loops(state.values)))

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """From the loops; FactUnavailable where there are none and a counter at the top is not a count."""
        state = checkpoint.state
        loops = read_loops(state.values)
        for counter in checkpoint.recorded if loops is None else ():
            if not is_count(counter.value):
                raise FactUnavailable(f"{counter.key} in {state.path} is not valid", path=state.path, blocked=True)
        return progress_of(loops, self.held(checkpoint))

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """What Lightning stops at; the counters of the loops among each other, and against those at the top."""
        state = checkpoint.state
        loops = read_loops(state.values)
        among = contradictions(state.path, state.values, loops) if loops else ()
        return (*broken_fields(state.path, state.values), *among)

    def dataloaders(self, checkpoint: Checkpoint) -> DataLoaders:
        """Of loaders that keep a state; within an epoch they are compared with its loop."""
        state = checkpoint.state
        loops = read_loops(state.values)
        kept = loops.loaders if loops else ()
        states = (state_dicts.data_loader(v, state.path, f"{LOADERS}[{i}]") for i, v in enumerate(kept))
        under_way = loops is not None and not loops.at_end and loops.batches["processed"] > 0
        return DataLoaders(tuple(states), position=loops.batches["processed"] if loops and under_way else None)

    def _none(self, what: str) -> NoReturn:
        raise FactUnavailable(f"the layout {self.name} holds no {what}")


def _recorded(state: TrainingState, loops: Loops | None) -> Iterator[Recorded]:
    for name in ("epoch", "global_step"):
        value = state.values.get(name)
        if value is not None and (loops is None or agrees(name, value, loops)):
            yield Recorded(name, value, state.path, name)
        elif loops is not None:
            count, key = of_loops(name, loops)
            yield Recorded(name, count, state.path, key)


def read_state(checkpoint: Checkpoint, path: str, *fields: Field) -> TrainingState:
    """The dictionary in a file, of which some fields are expected beside those that Lightning always keeps."""
    values = dictionary(checkpoint, path)
    return TrainingState(path, values, (*fields, *FIELDS))


def keys_in(values: object) -> tuple[str, ...]:
    """Lightning's own keys in a dictionary, its version first."""
    return tuple(k for k in KEYS if k in values) if isinstance(values, Mapping) else ()

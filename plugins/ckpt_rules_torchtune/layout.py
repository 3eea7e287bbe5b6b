"""torchtune's layout: recognising it, and where its facts are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    Contradiction,
    DictCheckpoint,
    FactUnavailable,
    Field,
    ModelConfig,
    Progress,
    Requirement,
    Severity,
    Sign,
    Signature,
    TrainingState,
    Weights,
    find_weights,
    state_dicts,
    torch_weights,
)
from ckpt_rules_torchtune import epochs
from ckpt_rules_torchtune.epochs import ADAPTER, SETTINGS, STATE

_WHY_STATE = (
    "torchtune stops: only this file holds optimizer and counters; a run of one epoch never writes it; to load the "
    "weights, verify with the ruleset inference"
)
_WHY_WEIGHTS = "torchtune stops: there are no weights of any epoch to continue with"
_WHY_ADAPTER = "torchtune stops: it reads the adapter only from here, and in no other form"
_FIELDS = (
    Field("optimizer", ("optimizer",), Severity.ERROR, "torchtune stops with KeyError: 'optimizer'"),
    Field("epoch", ("epochs_run",), Severity.ERROR, "torchtune stops with KeyError: 'epochs_run'"),
    Field("total_epochs", ("total_epochs",), Severity.ERROR, "torchtune stops with KeyError: 'total_epochs'"),
    Field("seed", ("seed",), Severity.ERROR, "torchtune stops with KeyError: 'seed'"),
)


_EPOCH = Sign(lambda checkpoint: [f"{epochs.newest(checkpoint)}/"])


class Torchtune(DictCheckpoint):
    """`epoch_E/` with a model as the hub has it, and `recipe_state/recipe_state.pt`."""

    name = "torchtune"
    title = "torchtune output directory"
    one_file: ClassVar[bool] = False
    counters: ClassVar = {"epoch": "epochs_run", "total_epochs": "total_epochs"}
    fields = _FIELDS
    signatures = (
        Signature(must=(Sign.file(STATE),), may=(Sign.file(SETTINGS), _EPOCH)),
        Signature(must=(Sign.file(SETTINGS), _EPOCH)),
    )

    def path(self, checkpoint: Checkpoint) -> str:
        """The recipe state, whatever else is there."""
        return STATE

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """The recipe state, and the newest epoch's weights or adapter."""
        state = Requirement((STATE,), _WHY_STATE)
        found = epochs.folders(checkpoint)
        if not found:
            return (
                state,
                Requirement(("epoch_0/model-00001-of-00001.safetensors",), _WHY_WEIGHTS, purposes=TO_RESUME_OR_LOAD),
            )
        newest = found[max(found)]
        if epochs.has_adapters(checkpoint):
            return (state, Requirement((f"{newest}/{ADAPTER}",), _WHY_ADAPTER, purposes=TO_RESUME_OR_LOAD))
        usual = f"{newest}/model-00001-of-00001.safetensors"
        there = epochs.shards(checkpoint, newest)
        return (state, Requirement((*there, usual) if there else (usual,), _WHY_WEIGHTS, purposes=TO_RESUME_OR_LOAD))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of the newest epoch; of an adapter's run the adapter, for a resume takes the rest from the base model."""
        newest = epochs.newest(checkpoint)
        path = f"{newest}/{ADAPTER}"
        if not checkpoint.listing.has_file(path):
            return find_weights(checkpoint, newest)
        file = checkpoint.files.torch_file(path)
        if not file.readable:
            raise FactUnavailable(f"{path} is damaged", path=path, blocked=True)
        return Weights((torch_weights(checkpoint, path),))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """That of the newest epoch."""
        newest = epochs.newest(checkpoint)
        if checkpoint.listing.has_file(f"{newest}/{ADAPTER}"):
            raise FactUnavailable("the configuration is of the base model, and the weights are an adapter")
        return state_dicts.config_file(checkpoint.files.json(f"{newest}/config.json"))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The recipe state; optimizers of single parameters, which step within the backward pass, are read as one.

        The LoRA recipes hand all parameters to the optimizer, the frozen ones too, which have no state and are left out.
        """
        state = super().state(checkpoint)
        values = state.values
        one = epochs.one_optimizer(values.get("optimizer"))
        if epochs.has_adapters(checkpoint):
            one = epochs.trained_only(one or values.get("optimizer"))
        return replace(state, values={**values, "optimizer": one}) if one else state

    def standing(self, checkpoint: Checkpoint, counts: Mapping[str, int]) -> Progress:
        """In whole epochs: torchtune saves at the end of each."""
        if "epoch" not in counts:
            raise FactUnavailable("no progress is recorded")
        return epochs.standing(checkpoint, counts["epoch"], counts.get("total_epochs"))

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Weights and recipe state of different epochs."""
        values = checkpoint.state.values
        return epochs.contradictions(checkpoint, values.get("epochs_run"), values.get("total_epochs"))

"""Checkpoints of the diffusers training scripts, whose hooks save each component in a directory of its own; and pipelines."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Layout,
    Match,
    ModelConfig,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Weights,
    saves_among,
    weights_of_components,
)
from ckpt_rules_accelerate.layout import Accelerate, components

_INDEX = "model_index.json"
_STEP = re.compile(r"checkpoint-(\d{1,12})")
_SCHEDULER = "scheduler/scheduler_config.json"
_CERTAIN, _PIPELINE, _LIKELY = 92, 85, 50
_BESIDE_SAVES = 6
"""Of a final pipeline in the directory of a run: its checkpoints are what training can be resumed from."""


class DiffusersTraining(Accelerate):
    """`checkpoint-N` with `unet/`, `unet_ema/` and Accelerate's optimizer.bin; its name is the only record of the step."""

    name = "diffusers-training"
    title = "diffusers training checkpoint"
    numbered_by_save: ClassVar[bool] = False

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By component directories beside Accelerate's files."""
        folders = components(checkpoint)
        own = [n for n in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl") if checkpoint.listing.get(n)]
        return Match(_CERTAIN, (*(f"{f}/" for f in folders), *own)) if folders and own else None

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Every component's but those of the moving averages, which no optimizer holds."""
        return weights_of_components(checkpoint, [f for f in components(checkpoint) if not f.endswith("_ema")])

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The number in the directory's name."""
        match = _STEP.fullmatch(_own_name(checkpoint))
        return (Recorded("global_step", int(match[1]), ".", "the directory's name"),) if match else ()

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the name; FactUnavailable where it holds no number."""
        recorded = checkpoint.recorded
        if not recorded:
            raise FactUnavailable("the directory is not named checkpoint-N, and nothing else records the step")
        step = int(str(recorded[0].value))
        sentence = (
            f"training continues at update {step + 1:,}, by the directory's name; the batches of the epoch under way are not "
            "skipped, but trained again from its first"
        )
        return Progress(
            global_step=step, expected_updates=step, exact=True, plan=ResumePlan(sentence, from_update=step)
        )


class Pipeline(Layout):
    """A diffusers pipeline: model_index.json and a directory for each component. It is for inference, not to be resumed."""

    name = "diffusers-pipeline"
    title = "diffusers pipeline"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By model_index.json; without it by component directories beside that of a scheduler's configuration."""
        listing = checkpoint.listing
        if listing.get(_INDEX) is not None:
            runs = saves_among(e.path for e in listing if e.kind is EntryKind.DIRECTORY)
            return Match(_BESIDE_SAVES if runs else _PIPELINE, (_INDEX,))
        folders = components(checkpoint)
        return (
            Match(_LIKELY, (*(f"{f}/" for f in folders), _SCHEDULER)) if folders and listing.get(_SCHEDULER) else None
        )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """A directory for each component that model_index.json names; and a training state, which a pipeline has none of."""
        both = frozenset({"resume", "load"})
        why = "model_index.json names this component"
        named = [Requirement((f"{folder}/*",), why, purposes=both) for folder in named_components(checkpoint)]
        state = "the directory holds a pipeline and no training state; to load it, verify with the ruleset inference"
        index = "without it diffusers does not know which pipeline and which components these are"
        return (Requirement((_INDEX,), index, purposes=both), *named, Requirement(("training_state.pth",), state))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of every component that has any."""
        return weights_of_components(checkpoint, named_components(checkpoint))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Each component has its own."""
        raise FactUnavailable("a pipeline has a configuration for each component")


def named_components(checkpoint: Checkpoint) -> list[str]:
    """Directories that model_index.json names: entries that are a pair of library and class, neither of them null."""
    try:
        index = checkpoint.contents(_INDEX)
    except FactUnavailable:
        return []
    pairs = index.items() if isinstance(index, dict) else ()
    return [
        str(name)
        for name, value in pairs
        if isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, str) for v in value)
        and "/" not in str(name)
    ]


def _own_name(checkpoint: Checkpoint) -> str:
    return os.path.basename(os.path.abspath(checkpoint.path))

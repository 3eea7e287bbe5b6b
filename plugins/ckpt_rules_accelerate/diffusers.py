"""Checkpoints of the diffusers training scripts, whose hooks save each component in a directory of its own; and pipelines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Layout,
    ModelConfig,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Sign,
    Signature,
    Tells,
    Weights,
    conventions,
    own_name,
    weights_of_components,
)
from ckpt_rules_accelerate.layout import Accelerate, components

_INDEX = "model_index.json"
_MODEL = "diffusion_pytorch_model"
_ADAPTERS = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", "pytorch_custom_diffusion_weights.bin")
_TEXTS = frozenset({".json", ".md", ".txt"})
_STEP = re.compile(r"checkpoint-(\d{1,12})")
_SCHEDULER = "scheduler/scheduler_config.json"


def _folders(checkpoint: Checkpoint) -> list[str]:
    return [f"{folder}/" for folder in components(checkpoint)]


_COMPONENTS = Sign(_folders, Tells.MODEL, most=9)


class DiffusersTraining(Accelerate):
    """`checkpoint-N` with `unet/`, `unet_ema/` or LoRA weights, and Accelerate's optimizer.bin; its name alone records the step."""

    name = "diffusers-training"
    title = "diffusers training checkpoint"
    signatures = (
        Signature(
            must=(
                Sign(lambda checkpoint: [*_folders(checkpoint), *_adapters(checkpoint)], Tells.MODEL, most=9),
                Sign.file("optimizer.bin", "scheduler.bin", "random_states_0.pkl", tells=Tells.SHARED, most=3),
            ),
            extends=Accelerate.signatures,
        ),
    )
    numbered_by_save: ClassVar[bool] = False

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Accelerate's own, and what each component is built and filled from."""
        return (*super().requirements(checkpoint), *_component_requirements(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Every component's but those of the moving averages, which no optimizer holds; an adapter's, where that is trained."""
        if _adapters(checkpoint):
            return super().weights(checkpoint)
        return weights_of_components(checkpoint, [f for f in components(checkpoint) if not f.endswith("_ema")])

    def has_model(self, checkpoint: Checkpoint) -> bool:
        """The hooks of diffusers' scripts take the weights out of save_state's hands."""
        return True

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The number in the directory's name."""
        match = _STEP.fullmatch(own_name(checkpoint))
        return (Recorded("global_step", int(match[1]), ".", "the directory's name"),) if match else ()

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the name; FactUnavailable where it holds no number."""
        recorded = checkpoint.recorded
        if not recorded:
            raise FactUnavailable("the directory is not named checkpoint-N, and nothing else records the step")
        step = int(str(recorded[0].value))
        sentence = (
            f"training continues at update {step + 1:,}, by the directory's name; most scripts repeat the current "
            "epoch from its first batch; those for unconditional images and InstructPix2Pix skip the batches "
            "already trained"
        )
        return Progress(
            global_step=step, expected_updates=step, exact=True, plan=ResumePlan(sentence, from_update=step)
        )


class Pipeline(Layout):
    """A diffusers pipeline: model_index.json and a directory for each component. It is for inference, not to be resumed."""

    name = "diffusers-pipeline"
    title = "diffusers pipeline"
    signatures = (
        Signature(must=(Sign.file(_INDEX, tells=Tells.MODEL),)),
        Signature(must=(_COMPONENTS, Sign.file(_SCHEDULER, tells=Tells.MODEL))),
    )
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "a pipeline"

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """A directory for each component that model_index.json names, and what each is built from."""
        why = "model_index.json names this component"
        named = [
            Requirement((f"{folder}/*",), why, purposes=TO_RESUME_OR_LOAD) for folder in named_components(checkpoint)
        ]
        index = Requirement(
            (_INDEX,),
            "without it diffusers does not know which pipeline and which components these are",
            purposes=TO_RESUME_OR_LOAD,
        )
        return (index, *named, *_component_requirements(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of every component that has any."""
        return weights_of_components(checkpoint, named_components(checkpoint))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Each component has its own."""
        raise FactUnavailable("a pipeline has a configuration for each component")


def _adapters(checkpoint: Checkpoint) -> list[str]:
    return [name for name in _ADAPTERS if checkpoint.listing.has_file(name)]


def _component_requirements(checkpoint: Checkpoint) -> Iterator[Requirement]:
    """from_pretrained of a component stops without its configuration, and without its weights."""
    for folder in components(checkpoint):
        why = f"the component {folder} can't be built without it"
        yield Requirement((f"{folder}/config.json",), why, purposes=TO_RESUME_OR_LOAD)
        inside = [e for e in checkpoint.listing.files() if e.parent == folder and e.suffix not in _TEXTS]
        indexes = (f"{folder}/{_MODEL}.{suffix}.index.json" for suffix in ("safetensors", "bin"))
        if all(e.name.startswith(f"{_MODEL}-") for e in inside) and not any(map(checkpoint.listing.has_file, indexes)):
            names = tuple(f"{folder}/{name}" for name in conventions.weight_files.DIFFUSERS)
            yield Requirement(names, f"the component {folder} is loaded from it", purposes=TO_RESUME_OR_LOAD)


def named_components(checkpoint: Checkpoint) -> list[str]:
    """Directories that model_index.json names: entries that are a pair of library and class, neither of them null."""
    try:
        index = checkpoint.files.contents(_INDEX)
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

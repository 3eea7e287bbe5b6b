"""An adapter by itself, as `save_pretrained` of a PEFT model writes it: a configuration and weights, and nothing to resume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Layout,
    ModelConfig,
    Requirement,
    Sign,
    Signature,
    Tells,
    conventions,
)

CONFIG, WEIGHTS = conventions.weight_files.ADAPTER_CONFIG, conventions.weight_files.ADAPTER

_SAVE = re.compile(r"checkpoint-\d+")


def adapters(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Directories that hold an adapter each, '' being the top: one that is not called `default` lies below it.

    XLoRA's own adapters are left out: of each, PEFT saves whatever its filter lets through.
    """
    found = {e.parent for e in checkpoint.listing.files("adapter_*") if e.name in (CONFIG, *WEIGHTS)}
    if configuration(checkpoint, "").get("peft_type") == "XLORA":
        return ("",)
    return tuple(sorted(f for f in found if "/" not in f and not _SAVE.fullmatch(f)))


def configuration(checkpoint: Checkpoint, folder: str) -> Mapping[str, object]:
    """The adapter_config.json of a directory; empty where there is none that can be read."""
    try:
        config = (
            checkpoint.files.contents(inside(folder, CONFIG))
            if checkpoint.listing.get(inside(folder, CONFIG))
            else None
        )
    except FactUnavailable:
        return {}
    return config if isinstance(config, Mapping) else {}


def inside(folder: str, name: str) -> str:
    """The path of a file in such a directory."""
    return f"{folder}/{name}" if folder else name


def _of_mlx(checkpoint: Checkpoint) -> list[str]:
    """mlx-lm's configuration, whose weights are adapters.safetensors."""
    return [CONFIG] if "fine_tune_type" in configuration(checkpoint, "") else []


_CONFIG, _WEIGHTS = Sign.file(CONFIG, tells=Tells.MODEL), Sign.file(*WEIGHTS, tells=Tells.MODEL, most=2)


class PeftAdapter(Layout):
    """`adapter_config.json` and `adapter_model.safetensors`."""

    name = "peft-adapter"
    title = "PEFT adapter"
    signatures = (
        Signature(must=(_CONFIG, _WEIGHTS)),
        Signature(must=(_WEIGHTS,)),
        Signature(must=(_CONFIG,), never=(Sign(_of_mlx),)),
    )
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "an adapter"

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Its configuration; the rules of weights ask for those."""
        return (
            Requirement(
                (CONFIG,),
                "without it, PEFT does not know which modules the adapter changes and refuses to load it",
                purposes=TO_RESUME_OR_LOAD,
            ),
        )

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """None: adapter_config.json says nothing of the base model's sizes."""
        raise FactUnavailable("the base model's configuration is not part of an adapter")

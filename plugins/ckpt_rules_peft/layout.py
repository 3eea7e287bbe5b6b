"""An adapter by itself, as `save_pretrained` of a PEFT model writes it: a configuration and weights, and nothing to resume."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import Checkpoint, FactUnavailable, Layout, Match, ModelConfig, Requirement, conventions

CONFIG, WEIGHTS = conventions.weight_files.ADAPTER_CONFIG, conventions.weight_files.ADAPTER

_ADAPTER = 45
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


class PeftAdapter(Layout):
    """`adapter_config.json` and `adapter_model.safetensors`."""

    name = "peft-adapter"
    title = "PEFT adapter"
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "an adapter"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By either file; a trainer's own files beside them are stronger signs of that trainer."""
        signs = tuple(name for name in (CONFIG, *WEIGHTS) if checkpoint.listing.get(name) is not None)
        if signs == (CONFIG,) and "fine_tune_type" in configuration(checkpoint, ""):
            return None  # mlx-lm's, whose weights are adapters.safetensors
        return Match(_ADAPTER, signs) if signs else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Its configuration; the rules of weights ask for those."""
        return (
            Requirement(
                (CONFIG,),
                "without it PEFT does not know which modules the adapter changes, and refuses to load it",
                purposes=frozenset({"resume", "load"}),
            ),
        )

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """None: adapter_config.json says nothing of the base model's sizes."""
        raise FactUnavailable("the base model's configuration is not part of an adapter")

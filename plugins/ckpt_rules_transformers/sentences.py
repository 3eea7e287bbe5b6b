"""A sentence-transformers model by itself: what `save_pretrained` writes, without a training state."""

from __future__ import annotations

from typing import ClassVar

from ckpt_rules import Checkpoint, Layout, Match, Requirement, Weights
from ckpt_rules_transformers import modules

_SIGNS = (modules.FILE, modules.CONFIG, "sentence_bert_config.json")
_LIKELY = 60


class SentenceTransformer(Layout):
    """`modules.json` and a directory for each module that it names. It is for inference, not to be resumed."""

    name = "sentence-transformers"
    title = "sentence-transformers model"
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "a model"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By modules.json and one of the library's own files, or by these without it; a trainer's files are stronger signs."""
        signs = tuple(name for name in _SIGNS if checkpoint.listing.get(name) is not None)
        return Match(_LIKELY, signs) if len(signs) >= 2 else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """What the modules are built from."""
        return tuple(modules.module_requirements(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of every module."""
        return modules.weights_of_modules(checkpoint)

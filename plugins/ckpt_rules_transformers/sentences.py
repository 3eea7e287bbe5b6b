"""A sentence-transformers model by itself: what `save_pretrained` writes, without a training state."""

from __future__ import annotations

from typing import ClassVar

from ckpt_rules import Checkpoint, Layout, Requirement, Sign, Signature, Tells, Weights
from ckpt_rules_transformers import modules

_SIGNS = (modules.FILE, modules.CONFIG, "sentence_bert_config.json")


class SentenceTransformer(Layout):
    """`modules.json` and a directory for each module that it names. It is for inference, not to be resumed."""

    name = "sentence-transformers"
    title = "sentence-transformers model"
    signatures = (Signature(may=tuple(Sign.file(name, tells=Tells.MODEL) for name in _SIGNS), least=2),)
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "a model"

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """What the modules are built from."""
        return tuple(modules.module_requirements(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of every module."""
        return modules.weights_of_modules(checkpoint)

"""Checkpoints of the transformers Trainer and its kin: `checkpoint-N` with `trainer_state.json`."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The Trainer's layout, and that of the models of sentence-transformers."""
    from ckpt_rules_transformers.layout import TransformersTrainer
    from ckpt_rules_transformers.sentences import SentenceTransformer

    return [TransformersTrainer(), SentenceTransformer()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """Rules about what only the Trainer records, or does."""
    from ckpt_rules_transformers.converted import ConvertedOnSave
    from ckpt_rules_transformers.fields import RefusedField
    from ckpt_rules_transformers.history import OtherHistory, RunAhead
    from ckpt_rules_transformers.log import LogDisagrees

    return [LogDisagrees, ConvertedOnSave, OtherHistory, RefusedField, RunAhead]

"""PEFT adapters: alone in a directory, or inside another trainer's checkpoint."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """An adapter by itself."""
    from ckpt_rules_peft.layout import PeftAdapter

    return [PeftAdapter()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """What an adapter's configuration promises against what its file holds, and whether a resume can continue from it."""
    from ckpt_rules_peft.adapter import Adapter
    from ckpt_rules_peft.resumed import AdapterNotResumed
    from ckpt_rules_peft.vocabulary import AdapterVocabulary

    return [Adapter, AdapterNotResumed, AdapterVocabulary]

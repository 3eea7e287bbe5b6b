"""Orbax directories and Keras files: recognised, their files and structure checked. Their arrays are not looked into."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """Orbax and Keras."""
    from ckpt_rules_jax.keras import Keras
    from ckpt_rules_jax.orbax import Orbax

    return [Orbax(), Keras()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """Whether the files of Keras and Orbax are whole."""
    from ckpt_rules_jax.broken import BrokenKerasFile
    from ckpt_rules_jax.broken_items import BrokenOrbaxItem

    return [BrokenKerasFile, BrokenOrbaxItem]

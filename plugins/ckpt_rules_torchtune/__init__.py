"""torchtune's output directories: weights of each epoch, and one recipe state for all of them."""

from __future__ import annotations

from ckpt_rules import Layout, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The directory that a recipe writes into."""
    from ckpt_rules_torchtune.layout import Torchtune

    return [Torchtune()]

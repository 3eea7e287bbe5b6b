"""Rules about the model weights of a checkpoint."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `weights/` family."""
    return []

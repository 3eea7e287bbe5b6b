"""Rules about the files of a checkpoint, whatever they hold."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `files/` family."""
    return []

"""Rules that ask the real loaders: would they take the files? Slow, for a loader is imported and run in a process of its own."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The family `load`, which no ruleset selects unless it says so."""
    from ckpt_rules_load.rules import LoadSafetensors, LoadTorch

    return [LoadTorch, LoadSafetensors]

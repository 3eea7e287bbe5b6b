"""Rules that run the real loaders on the files. Slow: a loader is imported and run in its own process."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The family `load`, which no ruleset selects unless it says so."""
    from ckpt_rules_load.rules import LoadSafetensors, LoadTorch

    return [LoadTorch, LoadSafetensors]

"""Rules about the training state of a checkpoint: counters, optimizer, scheduler, scaler, RNG."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `state/`, `progress/`, `optimizer/`, `scheduler/`, `scaler/` and `rng/` families."""
    return []

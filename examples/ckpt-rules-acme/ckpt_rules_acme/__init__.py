"""Acme's rules, layout and ruleset for ckpt-rules."""

from __future__ import annotations

from pathlib import Path

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `acme/` family."""
    from ckpt_rules_acme.rules import NoFp32, OwnerFile

    return [NoFp32, OwnerFile]


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """What Acme's own trainer writes."""
    from ckpt_rules_acme.layout import AcmeTrainer

    return [AcmeTrainer()]


@hookimpl
def ckpt_rules_rulesets() -> dict[str, Path]:
    """`acme:house`."""
    return {"house": Path(__file__).with_name("house.yaml")}

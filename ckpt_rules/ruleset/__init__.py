"""YAML rulesets: which rules apply, how severe they are, with what options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckpt_rules.ruleset.resolve import resolve
from ckpt_rules.ruleset.resolved import Ignore, Origin, ResolvedRuleset, SelectedRule
from ckpt_rules.ruleset.sources import builtin_rulesets

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

__all__ = ["Ignore", "Origin", "ResolvedRuleset", "SelectedRule", "builtin_rulesets", "resolve", "ruleset_schema"]


def ruleset_schema(plugins: Plugins) -> dict[str, Any]:
    """JSON Schema of a ruleset file; rules, options, tags and rulesets of these plugins are named in it."""
    from ckpt_rules.ruleset import schema

    return schema.ruleset_schema(plugins)

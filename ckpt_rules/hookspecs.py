"""The hooks that a plugin may implement. Mark an implementation with `ckpt_rules.hookimpl`.

`ckpt_rules_rules`, `…_facts`, `…_layouts`, `…_reporters` and `…_rulesets` are called once, when plugins are collected: import rule
modules inside them, so that a command that needs no rule does not pay for them. The others observe a run; what they
return is not looked at. No result depends on the order of plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.fact import Fact
    from ckpt_rules.layout import Layout
    from ckpt_rules.report import Outcome, Report
    from ckpt_rules.rule import Rule

PROJECT = "ckpt_rules"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Reporter = Callable[["Report"], str]


@hookspec
def ckpt_rules_rules() -> Iterable[type[Rule]]:  # type: ignore[empty-body]
    """The rule classes that this plugin brings."""


@hookspec
def ckpt_rules_facts() -> Iterable[Fact[Any]]:  # type: ignore[empty-body]
    """The facts that this plugin brings: what its rules ask with `checkpoint[FACT]`, and layouts answer."""


@hookspec
def ckpt_rules_layouts() -> Iterable[Layout]:  # type: ignore[empty-body]
    """The layouts that this plugin recognises, as instances."""


@hookspec
def ckpt_rules_reporters() -> Mapping[str, Reporter]:  # type: ignore[empty-body]
    """Output formats by name, for `--format NAME`: pure functions from a `Report` to the text to print."""


@hookspec
def ckpt_rules_rulesets() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Ruleset files by name; users extend them as `plugin:name`."""


@hookspec
def ckpt_rules_run_started(checkpoint: Checkpoint, rules: tuple[Rule, ...]) -> None:
    """Called once for each checkpoint, before the first rule."""


@hookspec
def ckpt_rules_rule_finished(checkpoint: Checkpoint, outcome: Outcome) -> None:
    """Called after each rule with what became of it."""


@hookspec
def ckpt_rules_run_finished(checkpoint: Checkpoint, report: Report) -> None:
    """Called once for each checkpoint, with the finished report."""

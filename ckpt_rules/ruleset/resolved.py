"""A ruleset with nothing left open: what the engine runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

from ckpt_rules.finding import Finding, Severity
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.plugins import Plugins
from ckpt_rules.report import Notice
from ckpt_rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Origin:
    """The line of a ruleset file (or the flag) that decided something. `line` is 1-based, 0 for a flag."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class SelectedRule:
    """One rule that will run.

    rule:     with its options applied
    plugin:   the plugin that brought it
    severity: what the ruleset says, or None for the rule's own
    decided:  who selected it, and who set `severity` and each option, by name
    """

    rule: Rule
    plugin: str
    severity: Severity | None
    selected_by: Origin
    decided: dict[str, Origin]


@dataclass(frozen=True, slots=True)
class Ignore:
    """Findings that the user accepts. A finding must match all of `rule`, `path` and `tensor` (globs) that are given."""

    rule: str
    reason: str
    origin: Origin
    path: str | None = None
    tensor: str | None = None
    expires: date | None = None

    def matches(self, finding: Finding) -> bool:
        """Whether this finding is meant."""
        return (
            fnmatchcase(finding.rule, self.rule)
            and (self.path is None or fnmatchcase(finding.place.path, self.path))
            and (self.tensor is None or fnmatchcase(finding.place.tensor or "", self.tensor))
        )


@dataclass(frozen=True, slots=True)
class ResolvedRuleset:
    """What is in force: rules in the order of their ids, ignores that have not expired, and what to tell the user.

    plugins: the plugins to run with, local files of the ruleset included
    limits:  how much of a checkpoint is read
    notices: expired ignores and the like
    narrowed: whether the call left rules of the file out (`--select`, `--exclude`)
    purpose:  what a pass means: `resume`, `load` or `publish`
    layout:   the name of the layout to read a checkpoint as; `any` for its files alone, None for the one that fits best
    """

    name: str
    description: str
    strict: bool
    rules: tuple[SelectedRule, ...]
    ignores: tuple[Ignore, ...]
    plugins: Plugins
    notices: tuple[Notice, ...] = ()
    narrowed: bool = False
    limits: Limits = DEFAULT_LIMITS
    purpose: str = "resume"
    layout: str | None = None

"""Run one rule over one checkpoint, and assert on what it found. A failed assertion shows all that the rule said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ckpt_rules.api import finder
from ckpt_rules.engine import run
from ckpt_rules.finding import Finding, Severity
from ckpt_rules.layout import Layout
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import Plugin, Plugins, installed_plugins
from ckpt_rules.report import Outcome, Report, Status
from ckpt_rules.rule import Rule
from ckpt_rules.ruleset.resolved import Origin, ResolvedRuleset, SelectedRule
from ckpt_rules.storage import LocalStorage
from ckpt_rules.testing.watching import undeclared


def run_rule(
    rule: Rule,
    path: str | os.PathLike[str],
    *,
    layouts: Iterable[Layout] = (),
    strict: bool = False,
    previous: str | os.PathLike[str] | None = None,
) -> RuleResult:
    """Open a checkpoint as the engine does, with every installed layout, and run one rule over it.

    AssertionError where the rule declares `Reads.LISTING` and opens a file.

    rule:     an instance, with its options; its plugin need not be installed
    layouts:  further layouts, for a plugin that is not installed
    strict:   whether warnings become errors
    previous: the earlier save to compare with; None for the complete one before it, by its name
    """
    plugins = _with_layouts(installed_plugins(), tuple(layouts))
    owner = plugins.rules.get(rule.id)
    plugin = owner[1].name if owner else rule.family()
    selected = SelectedRule(rule, plugin, None, Origin("run_rule"), {})
    ruleset = ResolvedRuleset("run_rule", "one rule, in a test", strict, (selected,), (), plugins)
    report = run(LocalStorage(path, ruleset.limits), ruleset, previous=finder(ruleset, previous))
    if report.outcomes[0].status is not Status.CRASHED:
        checkpoint, _ = open_checkpoint(LocalStorage(path, ruleset.limits), plugins)
        if fault := undeclared(rule, checkpoint):
            raise AssertionError(fault)
    return RuleResult(report.outcomes[0], report)


def _with_layouts(plugins: Plugins, layouts: tuple[Layout, ...]) -> Plugins:
    known = {layout.name for layout in plugins.layouts}
    new = tuple(layout for layout in layouts if layout.name not in known)
    if not new:
        return plugins
    added = Plugin("test", "the test", "", "ckpt_rules.testing", layouts=new)
    return Plugins((*plugins.plugins, added), plugins.manager, plugins.disabled)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What became of one rule."""

    outcome: Outcome
    report: Report

    @property
    def status(self) -> Status:
        """Passed, failed, skipped or crashed."""
        return self.outcome.status

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that the rule found, in its order."""
        return self.outcome.findings

    @property
    def reason(self) -> str | None:
        """Why the rule was skipped."""
        return self.outcome.reason

    def assert_passed(self) -> None:
        """The rule did its work and found nothing."""
        if self.status is not Status.PASSED or self._faults():
            raise AssertionError(f"expected {self.outcome.rule} to pass\n{self.explanation()}")

    def assert_skipped(self, reason: str = "", *, blocked_by: str | None = None) -> None:
        """The rule was skipped; `reason` occurs in the reason, and `blocked_by` is the damaged file that kept it."""
        fits = self.status is Status.SKIPPED and reason in (self.reason or "")
        if not fits or blocked_by not in (None, self.outcome.blocked_by) or self._faults():
            because = f" because of {reason!r}" if reason else ""
            blocked = f", blocked by {blocked_by}" if blocked_by else ""
            raise AssertionError(f"expected {self.outcome.rule} to be skipped{because}{blocked}\n{self.explanation()}")

    def assert_one(  # noqa: PLR0913 - one keyword for each part of a finding
        self,
        *,
        path: str | None = None,
        tensor: str | None = None,
        key: str | None = None,
        offset: int | None = None,
        message: str | None = None,
        help: str | None = None,  # noqa: A002 - the name of the finding's field
        severity: Severity | str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> Finding:
        """The rule found this one thing and nothing else; the finding is returned.

        path, tensor, key, offset: parts of its place, compared exactly
        message, help: a part of the text
        severity: the effective one
        data: entries that its data holds, beside others
        """
        wanted = _Wanted(path, tensor, key, offset, message, help, severity, data)
        mismatch = wanted.mismatch(self.findings[0]) if self.findings else None
        if len(self.findings) != 1 or mismatch or self.status is not Status.FAILED or self._faults():
            differs = f"\n  it differs: {mismatch}" if mismatch and len(self.findings) == 1 else ""
            raise AssertionError(
                f"expected exactly one finding of {self.outcome.rule}{wanted}{differs}\n{self.explanation()}"
            )
        return self.findings[0]

    def assert_some(  # noqa: PLR0913 - one keyword for each part of a finding
        self,
        *,
        path: str | None = None,
        tensor: str | None = None,
        key: str | None = None,
        offset: int | None = None,
        message: str | None = None,
        help: str | None = None,  # noqa: A002 - the name of the finding's field
        severity: Severity | str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> Finding:
        """Among what the rule found is this; the first such finding is returned. Parts as in `assert_one`."""
        wanted = _Wanted(path, tensor, key, offset, message, help, severity, data)
        for finding in self.findings:
            if wanted.mismatch(finding) is None:
                return finding
        raise AssertionError(f"expected a finding of {self.outcome.rule}{wanted}\n{self.explanation()}")

    def explanation(self) -> str:
        """All that the run said, for a reader who must find out why a test failed."""
        blocked = f", blocked by {self.outcome.blocked_by}" if self.outcome.blocked_by else ""
        reason = f": {self.reason}{blocked}" if self.reason else ""
        lines = [
            f"  checkpoint: {self.report.checkpoint}, read as {self.report.layout.name}",
            f"  status: {self.status.value}{reason}",
            f"  findings: {len(self.findings) or 'none'}",
            *(f"    {number}. {_shown(finding)}" for number, finding in enumerate(self.findings, 1)),
            *(f"  notice: {notice.message}" for notice in self.report.notices),
        ]
        if self.outcome.crash:
            lines += ["  crash:", *(f"    {line}" for line in self.outcome.crash.traceback.splitlines())]
        return "\n".join(lines)

    def _faults(self) -> bool:
        return any(notice.fatal for notice in self.report.notices)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The parts of a finding that a test insists on; None is anything."""

    path: str | None
    tensor: str | None
    key: str | None
    offset: int | None
    message: str | None
    help: str | None
    severity: Severity | str | None
    data: Mapping[str, object] | None

    def mismatch(self, finding: Finding) -> str | None:
        """What is not as wanted, or None."""
        for name, wanted, found in self._exact(finding):
            if wanted is not None and wanted != found:
                return f"{name} is {found!r}, not {wanted!r}"
        for name, part, text in (("message", self.message, finding.message), ("help", self.help, finding.help)):
            if part is not None and part not in (text or ""):
                return f"the {name} does not hold {part!r}"
        for name, value in (self.data or {}).items():
            if name not in finding.data or finding.data[name] != value:
                return f"data[{name!r}] is {finding.data.get(name, 'absent')!r}, not {value!r}"
        return None

    def _exact(self, finding: Finding) -> list[tuple[str, object, object]]:
        place = finding.place
        return [
            ("path", self.path, place.path),
            ("tensor", self.tensor, place.tensor),
            ("key", self.key, place.key),
            ("offset", self.offset, place.offset),
            ("severity", self.severity, finding.severity),
        ]

    def __str__(self) -> str:
        parts = [f"{name}={getattr(self, name)!r}" for name in self.__slots__ if getattr(self, name) is not None]
        return f" with {', '.join(parts)}" if parts else ""


def _shown(finding: Finding) -> str:
    data = f"\n       data: {finding.data}" if finding.data else ""
    advice = f"\n       help: {finding.help}" if finding.help else ""
    return f"{finding.severity.value}: {finding.message} ({finding.place}){advice}{data}"

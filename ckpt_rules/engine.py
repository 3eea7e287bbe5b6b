"""Runs the rules of a ruleset over one checkpoint.

directory -> listing -> layout -> (facts <- rules) -> outcomes -> verdict. A rule that raises is one crashed outcome: the
others run, and the verdict can't be a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from ckpt_rules import __version__
from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import RootKind
from ckpt_rules.finding import Finding, Problem, Severity
from ckpt_rules.plugins import Plugins, crash_of
from ckpt_rules.report import (
    Counts,
    LayoutSummary,
    Notice,
    Outcome,
    Report,
    RulesetSummary,
    Status,
    Verdict,
)

if TYPE_CHECKING:
    from ckpt_rules.layout import Layout, Match
    from ckpt_rules.ruleset.resolved import Ignore, ResolvedRuleset, SelectedRule
    from ckpt_rules.storage import Storage


def open_checkpoint(storage: Storage, plugins: Plugins) -> tuple[Checkpoint, list[Notice]]:
    """The checkpoint with its layout chosen; a layout that raises is passed over and noted."""
    checkpoint = Checkpoint(storage)
    notices = [_broken_plugin(str(p), p.crash) for p in plugins.broken if p.crash]
    if checkpoint.root.kind is RootKind.DIRECTORY:
        matches: list[tuple[Match | None, Layout]] = []
        for layout in plugins.layouts:
            try:
                matches.append((layout.recognise(checkpoint), layout))
            except FactUnavailable:
                continue
            except Exception as error:  # noqa: BLE001 - a plugin's fault must not cost the user the other layouts
                message = f"the layout {layout.name} of {plugins.layout_plugin(layout)} crashed while it was asked"
                crash = crash_of(error)
                text = f"{message}: {crash.type}: {crash.message}"
                notices.append(Notice(severity=Severity.ERROR, message=text, fatal=True, crash=crash))
        checkpoint.use(matches)
    return checkpoint, notices


def run(storage: Storage, ruleset: ResolvedRuleset) -> Report:
    """Run every rule of a ruleset over one checkpoint."""
    started = perf_counter()
    checkpoint, notices = open_checkpoint(storage, ruleset.plugins)
    hook = ruleset.plugins.manager.hook
    notices += _observe(hook.ckpt_rules_run_started, checkpoint=checkpoint, rules=tuple(s.rule for s in ruleset.rules))
    outcomes: list[Outcome] = []
    used: set[Ignore] = set()
    for selected in ruleset.rules:
        outcome = _run_rule(selected, checkpoint, ruleset, used)
        outcomes.append(outcome)
        notices += _observe(hook.ckpt_rules_rule_finished, checkpoint=checkpoint, outcome=outcome)
    notices += [*ruleset.notices, *_unused(ruleset.ignores, used)]
    if ruleset.strict:
        notices = [n.model_copy(update={"severity": _promoted(n.severity)}) for n in notices]
    report = _report(checkpoint, ruleset, outcomes, notices, perf_counter() - started)
    late = _observe(hook.ckpt_rules_run_finished, checkpoint=checkpoint, report=report)
    return _report(checkpoint, ruleset, outcomes, notices + late, report.seconds) if late else report


def _run_rule(selected: SelectedRule, checkpoint: Checkpoint, ruleset: ResolvedRuleset, used: set[Ignore]) -> Outcome:
    started = perf_counter()
    findings: list[Finding] = []
    status, reason, blocked_by, crash = Status.PASSED, None, None, None
    try:
        for problem in _problems(selected, checkpoint):
            findings.append(_finding(problem, selected, ruleset, used))
    except FactUnavailable as absent:
        # What was found before the fact was missed stands: the rule then failed, and is not merely skipped.
        status, reason = Status.SKIPPED, absent.reason
        blocked_by = (absent.path or ".") if absent.blocked else None
    except Exception as error:  # noqa: BLE001 - one of the two boundaries of design.md: around a rule
        status, crash = Status.CRASHED, crash_of(error)
    if status is not Status.CRASHED and any(f.ignored is None for f in findings):
        status = Status.FAILED
    return Outcome(
        rule=selected.rule.id,
        plugin=selected.plugin,
        summary=selected.rule.page().summary,
        severity=_effective(selected, None, strict=ruleset.strict),
        status=status,
        findings=tuple(findings),
        reason=reason,
        blocked_by=blocked_by,
        crash=crash,
        seconds=perf_counter() - started,
    )


def _problems(selected: SelectedRule, checkpoint: Checkpoint) -> Iterator[Problem]:
    for problem in selected.rule.check(checkpoint) or ():
        if not isinstance(problem, Problem):
            raise TypeError(f"{selected.rule.id} yielded {problem!r}; a rule yields Problem objects")
        yield problem


def _finding(problem: Problem, selected: SelectedRule, ruleset: ResolvedRuleset, used: set[Ignore]) -> Finding:
    finding = Finding(
        rule=selected.rule.id,
        plugin=selected.plugin,
        severity=_effective(selected, problem.severity, strict=ruleset.strict),
        place=problem.place,
        message=problem.message,
        help=problem.help,
        data=problem.data,
    )
    matching = [i for i in ruleset.ignores if i.matches(finding)]
    used.update(matching)
    return finding.model_copy(update={"ignored": matching[0].reason}) if matching else finding


def _effective(selected: SelectedRule, own: Severity | None, *, strict: bool) -> Severity:
    severity = selected.severity or own or selected.rule.severity
    return _promoted(severity) if strict else severity


def _promoted(severity: Severity) -> Severity:
    return Severity.ERROR if severity is Severity.WARNING else severity


def _unused(ignores: Iterable[Ignore], used: set[Ignore]) -> list[Notice]:
    return [
        Notice(
            severity=Severity.WARNING,
            message=f"{i.origin}: nothing was found that the ignore of {i.rule} would silence; delete it",
        )
        for i in ignores
        if i not in used
    ]


def _broken_plugin(name: str, crash: object) -> Notice:
    return Notice.model_validate(
        {
            "severity": Severity.ERROR,
            "message": f"the plugin {name} could not be loaded: {crash.type}: {crash.message}",  # type: ignore[attr-defined]
            "fatal": True,
            "crash": crash,
        }
    )


def _observe(hook: object, **kwargs: object) -> list[Notice]:
    """Tell observers about the run; one that raises is a notice, for its author and the exit code."""
    try:
        hook(**kwargs)  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - an observer's fault must not cost the user the report
        crash = crash_of(error)
        message = f"a plugin crashed in a hook that observes the run: {crash.type}: {crash.message}"
        return [Notice(severity=Severity.ERROR, message=message, fatal=True, crash=crash)]
    return []


def _report(
    checkpoint: Checkpoint,
    ruleset: ResolvedRuleset,
    outcomes: Sequence[Outcome],
    notices: Sequence[Notice],
    seconds: float,
) -> Report:
    counts = _count(outcomes)
    verdict, reason = _verdict(outcomes, notices, counts)
    return Report(
        tool_version=__version__,
        checkpoint=checkpoint.path,
        layout=LayoutSummary(
            name=checkpoint.layout.name,
            title=checkpoint.layout.title,
            signs=checkpoint.match.signs if checkpoint.match else (),
        ),
        ruleset=RulesetSummary(name=ruleset.name, strict=ruleset.strict),
        verdict=verdict,
        reason=reason,
        resume=_resume(checkpoint),
        counts=counts,
        outcomes=tuple(outcomes),
        notices=tuple(notices),
        seconds=seconds,
    )


def _count(outcomes: Sequence[Outcome]) -> Counts:
    status = [o.status for o in outcomes]
    live = [f.severity for o in outcomes for f in o.findings if f.ignored is None]
    return Counts(
        passed=status.count(Status.PASSED),
        failed=status.count(Status.FAILED),
        skipped=status.count(Status.SKIPPED),
        crashed=status.count(Status.CRASHED),
        errors=live.count(Severity.ERROR),
        warnings=live.count(Severity.WARNING),
        infos=live.count(Severity.INFO),
        ignored=sum(f.ignored is not None for o in outcomes for f in o.findings),
    )


def _verdict(outcomes: Sequence[Outcome], notices: Sequence[Notice], counts: Counts) -> tuple[Verdict, str]:
    """The answer, and why in one sentence. What could not be checked outranks what was found."""
    fatal = [n for n in notices if n.fatal]
    blocked = _unexplained(outcomes)
    if counts.crashed:
        return Verdict.UNKNOWN, f"{_number(counts.crashed, 'rule')} crashed, so the answer is unknown"
    if fatal:
        return Verdict.UNKNOWN, "a plugin failed, so not everything was checked and the answer is unknown"
    if not outcomes:
        return Verdict.UNKNOWN, "no rule was selected, so nothing was checked"
    if counts.errors:
        return Verdict.FAILED, f"{_number(counts.errors, 'error')} found"
    if blocked:
        return Verdict.UNKNOWN, f"{blocked[0].blocked_by} could not be read, so {blocked[0].rule} could not be checked"
    if counts.skipped == len(outcomes):
        return Verdict.UNKNOWN, "every selected rule was skipped, so nothing was checked"
    if any(n.severity is Severity.ERROR for n in notices):
        return Verdict.FAILED, "the ruleset itself has warnings, which strict mode treats as errors"
    return Verdict.PASSED, f"{_number(counts.passed, 'check')} passed"


def _unexplained(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Rules kept from their work by a file about which the run has nothing to say: it must not end as a pass."""
    explained = {f.place.path for o in outcomes for f in o.findings}
    return [o for o in outcomes if o.blocked_by is not None and o.blocked_by not in explained]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _resume(checkpoint: Checkpoint) -> str | None:
    try:
        plan = checkpoint.progress.plan
    except FactUnavailable:
        return None
    except Exception:  # noqa: BLE001 - the rule that asked for the same fact has already been counted as crashed
        return None
    return plan.sentence if plan else None

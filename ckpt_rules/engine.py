"""Runs the rules of a ruleset over one checkpoint.

directory -> listing -> layout -> (facts <- rules) -> outcomes -> verdict. A rule that raises is one crashed outcome: the
others run, and the verdict can't be a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from time import perf_counter
from traceback import walk_tb
from typing import TYPE_CHECKING

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.deep.facts import read_all, unread_files
from ckpt_rules.errors import FactUnavailable, LayoutFault
from ckpt_rules.facts.files import RootKind
from ckpt_rules.facts.values import Wanted
from ckpt_rules.finding import Finding, Problem, Severity
from ckpt_rules.layout import Layout
from ckpt_rules.observers import Observers
from ckpt_rules.opening import layout_summary, open_checkpoint
from ckpt_rules.plugin import crash_of
from ckpt_rules.printable import shortened
from ckpt_rules.reading import Reading
from ckpt_rules.report import Notice, Outcome, Report, RulesetSummary, Status
from ckpt_rules.rule import Reads
from ckpt_rules.time_limit import TimeLimitExceeded, limited
from ckpt_rules.traits import ANY
from ckpt_rules.understanding import Unknown, not_understood
from ckpt_rules.verdict import Situation, count, judge
from ckpt_rules.version import __version__

if TYPE_CHECKING:
    from ckpt_rules.ruleset.resolved import Ignore, ResolvedRuleset, SelectedRule
    from ckpt_rules.storage import Storage

MAX_FINDINGS = 10_000
"""Findings kept of one rule: 20 MB of them. A rule that continues is stopped, and its outcome says so."""

MAX_PROBLEMS = 1_000_000
"""Problems looked at of one rule, where all but `MAX_FINDINGS` are ignored. A rule that continues has no end."""

MAX_TEXT = 20_000
"""Characters kept of a message or a help; where there are more, the middle is left out."""


def run(
    storage: Storage,
    ruleset: ResolvedRuleset,
    rule_timeout: float | None = None,
    layout: str | None = None,
    reading: Reading = Reading(),  # noqa: B008 - it is frozen
    previous: Callable[[Checkpoint], Checkpoint] | None = None,
) -> Report:
    """Run every rule of a ruleset over one checkpoint.

    rule_timeout: seconds after which a rule is stopped; None for no limit
    layout:       the name of the layout to read it as; None for the one that fits best
    reading:      how every byte is read, where a rule needs that; no time limit holds for it
    previous:     finds the save to compare with, when a rule first asks for it; see `Checkpoint.find_previous`
    """
    started = perf_counter()
    checkpoint, notices = open_checkpoint(
        storage, ruleset.plugins, ruleset.limits, rule_timeout, layout or ruleset.layout
    )
    observers = Observers(ruleset.plugins.manager)
    observers.tell("ckpt_rules_run_started", checkpoint=checkpoint, rules=tuple(s.rule for s in ruleset.rules))
    outcomes: list[Outcome] = []
    used: set[Ignore] = set()
    read = False
    checkpoint.reading = reading
    if previous is not None:
        checkpoint.find_previous = previous
    for selected in sorted(ruleset.rules, key=_turn):
        if selected.rule.reads is Reads.BYTES and not read:
            notices += _read_all(checkpoint, ruleset, rule_timeout)
            read = True
        outcome = _run_rule(selected, checkpoint, ruleset, used, rule_timeout)
        outcomes.append(outcome)
        observers.tell("ckpt_rules_rule_finished", checkpoint=checkpoint, outcome=outcome)
    place = {selected.rule.id: number for number, selected in enumerate(ruleset.rules)}
    outcomes.sort(key=lambda outcome: place[outcome.rule])
    notices += [*ruleset.notices, *_unused(ruleset, used, outcomes)]
    if ruleset.strict:
        notices = [n.model_copy(update={"severity": _promoted(n.severity)}) for n in notices]

    resume = _resume(checkpoint, rule_timeout)
    unknown = _not_understood(checkpoint, ruleset.purpose, rule_timeout)
    if unknown and unknown.advice:
        notices.append(Notice(severity=Severity.INFO, message=unknown.advice))
    situation = Situation(
        checkpoint.files.root.kind is RootKind.DIRECTORY,
        ruleset.narrowed,
        resume,
        ruleset.purpose,
        unknown.reason if unknown else None,
        checkpoint.layout.name == ANY,
    )

    def report() -> Report:
        seconds = perf_counter() - started
        return _report(checkpoint, ruleset, outcomes, [*notices, *observers.notices], situation, seconds)

    finished, noted = report(), len(observers.notices)
    observers.tell("ckpt_rules_run_finished", checkpoint=checkpoint, report=finished)
    return finished if len(observers.notices) == noted else report()


def _turn(selected: SelectedRule) -> tuple[bool, bool]:
    """Rules that read bytes come late, for by then all headers are known; those about the reading itself come last."""
    return selected.rule.last, selected.rule.reads is Reads.BYTES


def _read_all(checkpoint: Checkpoint, ruleset: ResolvedRuleset, timeout: float | None) -> list[Notice]:
    """Read every byte once, for all rules that want something of them; those of the save before, where one does of that."""
    wanted, before = Wanted(), Wanted()
    for selected in ruleset.rules:
        if selected.rule.why_not_for(checkpoint.layout.name):
            continue
        # A rule that raises here will do so again when it is its turn, and is then counted as crashed.
        with suppress(FactUnavailable, TimeLimitExceeded, Exception):
            wanted |= limited(timeout, partial(selected.rule.wanted, checkpoint))
            before |= limited(timeout, partial(selected.rule.wanted_before, checkpoint))
    try:
        if wanted:
            read_all(checkpoint, wanted)
        if before:
            read_all(checkpoint.previous, before)
    except FactUnavailable:
        return []
    except BaseException as error:  # noqa: BLE001 - whatever an executor or a storage raises
        crash = crash_of(error)
        message = f"reading every byte failed: {crash.type}: {crash.message}"
        return [Notice(severity=Severity.ERROR, message=message, fatal=True, crash=crash)]
    return []


def _run_rule(
    selected: SelectedRule,
    checkpoint: Checkpoint,
    ruleset: ResolvedRuleset,
    used: set[Ignore],
    timeout: float | None,
) -> Outcome:
    started = perf_counter()
    findings: list[Finding] = []
    status, reason, blocked_by, crash = Status.PASSED, None, None, None
    known = checkpoint.mark()
    try:
        found = (_finding(problem, selected, ruleset, used) for problem in _problems(selected, checkpoint))
        reason = limited(timeout, partial(_collect, found, findings))
    except TimeLimitExceeded as error:
        checkpoint.forget_since(known)
        status, crash, reason = Status.CRASHED, crash_of(error), f"stopped after {timeout:g} s (rule-timeout)"
    except FactUnavailable as absent:
        # What was found before the fact was missed stands: the rule then failed, and is not merely skipped.
        status, reason = Status.SKIPPED, absent.reason
        blocked_by = (absent.path or ".") if absent.blocked else None
    except BaseException as error:  # noqa: BLE001 - one of the two boundaries: around a rule
        crash = crash_of(error).model_copy(update={"layout": _layout_to_blame(error, checkpoint)})
        status = Status.CRASHED
    if status is not Status.CRASHED and any(f.ignored is None for f in findings):
        status = Status.FAILED
    return Outcome(
        rule=selected.rule.id,
        plugin=selected.plugin,
        summary=selected.rule.page().summary,
        severity=_effective(selected, None, strict=ruleset.strict),
        options=selected.rule.model_dump(exclude_defaults=True),
        status=status,
        findings=tuple(findings),
        reason=reason,
        blocked_by=blocked_by,
        crash=crash,
        seconds=perf_counter() - started,
    )


def _layout_to_blame(error: BaseException, checkpoint: Checkpoint) -> str | None:
    """The layout's name, where the error was raised while it answered a fact, or for what it answered."""
    frames = (frame.f_code for frame, _ in walk_tb(error.__traceback__))
    asked = isinstance(error, LayoutFault) or any(code is Layout.answer.__code__ for code in frames)
    return checkpoint.layout.name if asked else None


def _collect(found: Iterable[Finding], findings: list[Finding]) -> str | None:
    """Keep what is found, up to a bound; why it was stopped there, or None."""
    for finding in found:
        if len(findings) < MAX_FINDINGS:
            findings.append(finding)
        elif finding.ignored is None:
            findings.append(finding)
            return f"it was stopped after {MAX_FINDINGS:,} findings; there are more"
    return None


def _problems(selected: SelectedRule, checkpoint: Checkpoint) -> Iterator[Problem]:
    if reason := selected.rule.why_not_for(checkpoint.layout.name):
        raise FactUnavailable(reason)
    wanted = selected.rule.wanted(checkpoint) if selected.rule.reads is Reads.BYTES else Wanted()
    if wanted:
        read_all(checkpoint, wanted)
    try:
        yield from _checked(selected, checkpoint)
    except FactUnavailable as absent:
        if not absent.blocked:  # what the rule did not find may lie in what could not be looked at
            _require_all(checkpoint, wanted)
        raise
    _require_all(checkpoint, wanted)


def _require_all(checkpoint: Checkpoint, wanted: Wanted) -> None:
    """FactUnavailable where bytes that a rule wanted could not be looked at: it can't say that they are as they should be."""
    missed = unread_files(checkpoint, wanted) if wanted else {}
    for path, why in missed.items():
        more = f", and {len(missed) - 1:,} more" if len(missed) > 1 else ""
        raise FactUnavailable(f"not all bytes of {path}{more} could be looked at: {why}", path=path, blocked=True)


def _checked(selected: SelectedRule, checkpoint: Checkpoint) -> Iterator[Problem]:
    found: object = selected.rule.check(checkpoint)
    if found is None or isinstance(found, Problem) or not isinstance(found, Iterable):
        raise TypeError(
            f"the check of {selected.rule.id} returned {found!r}; it must yield each Problem, or return a list"
        )
    for number, problem in enumerate(found):
        if not isinstance(problem, Problem):
            raise TypeError(f"the check of {selected.rule.id} yielded {problem!r}, which is not a Problem")
        if number >= MAX_PROBLEMS:
            raise RuntimeError(f"the check of {selected.rule.id} yielded more than {MAX_PROBLEMS:,} problems")
        yield problem


def _finding(problem: Problem, selected: SelectedRule, ruleset: ResolvedRuleset, used: set[Ignore]) -> Finding:
    finding = Finding(
        rule=selected.rule.id,
        plugin=selected.plugin,
        severity=_effective(selected, problem.severity, strict=ruleset.strict),
        place=problem.place,
        message=shortened(problem.message, MAX_TEXT),
        help=problem.help and shortened(problem.help, MAX_TEXT),
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


def _unused(ruleset: ResolvedRuleset, used: set[Ignore], outcomes: Sequence[Outcome]) -> list[Notice]:
    """A warning for each ignore that silenced nothing, unless its rules could not say: left out, skipped or crashed."""
    ran = [o.rule for o in outcomes if o.status in {Status.PASSED, Status.FAILED}]
    idle = [i for i in ruleset.ignores if i not in used]
    if ruleset.narrowed or len(ran) < len(outcomes):
        idle = [i for i in idle if any(fnmatchcase(rule, i.rule) for rule in ran)]
    return [
        Notice(
            severity=Severity.WARNING,
            message=f"{i.origin}: nothing was found that the ignore of {i.rule} would silence; delete it",
        )
        for i in idle
    ]


def _report(
    checkpoint: Checkpoint,
    ruleset: ResolvedRuleset,
    outcomes: Sequence[Outcome],
    notices: Sequence[Notice],
    situation: Situation,
    seconds: float,
) -> Report:
    counts = count(outcomes)
    verdict, reason = judge(outcomes, notices, counts, situation)
    return Report(
        tool_version=__version__,
        checkpoint=checkpoint.path,
        layout=layout_summary(checkpoint),
        ruleset=RulesetSummary(name=ruleset.name, strict=ruleset.strict, narrowed=ruleset.narrowed),
        verdict=verdict,
        reason=reason,
        resume=situation.resume,
        counts=counts,
        outcomes=tuple(outcomes),
        notices=tuple(notices),
        seconds=seconds,
    )


def _resume(checkpoint: Checkpoint, timeout: float | None) -> str | None:
    try:
        plan = limited(timeout, lambda: checkpoint.progress.plan)
        return str(plan.sentence) if plan else None
    except FactUnavailable:
        return None
    except BaseException as error:  # noqa: BLE001 - the rule that asked for the same fact has been counted as crashed
        crash_of(error)
        return None


def _not_understood(checkpoint: Checkpoint, purpose: str, timeout: float | None) -> Unknown | None:
    try:
        return limited(timeout, partial(not_understood, checkpoint, purpose))
    except BaseException as error:  # noqa: BLE001 - a layout's fault; what it says is unknown then
        crash = crash_of(error)
        return Unknown(f"the layout {checkpoint.layout.name} crashed: {crash.type}: {crash.message}")

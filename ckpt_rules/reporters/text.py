"""The report for people: what was looked at, what passed, what is wrong and what to do, and at the end the answer.

Families of rules that found nothing take a line or two; those that did come after them, next to the verdict, where the eye
is when a command ends. Nothing depends on colour, and every line but a name that is longer fits 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckpt_rules.finding import Severity
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import Answer, Notice, Outcome, Report, Status, Verdict, worst_verdict
from ckpt_rules.reporters.findings import INDENT, crash, findings, title, traceback
from ckpt_rules.reporters.style import Style

_MOST_REASONS = 6
PLAIN = Style()
NAMED = 6
"""Skipped rules of one reason that are named; more are counted."""

_COLOUR = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.UNKNOWN: "yellow"}


def render(report: Report, style: Style = PLAIN, *, verbose: bool = False, quiet: bool = False) -> str:
    """One report. `verbose` shows each rule with its reason and time; `quiet` only what is wrong, and nothing on a pass."""
    if quiet and report.passed:
        return ""
    page = _Page(report, style, verbose=verbose, quiet=quiet)
    blocks = [page.header(), page.clean(), *page.wrong(), page.idle(), page.notices(), page.end()]
    return "\n\n".join("\n".join(block) for lines in blocks if (block := list(lines))) + "\n"


def summary(
    reports: Sequence[Report | Answer], style: Style = PLAIN, newest: Mapping[str, str | None] | None = None
) -> str:
    """One line for each of several reports, the verdict over all, and the newest that passed in each run."""
    lines = [style.paint(f"{len(reports):,} checkpoints", "bold")]
    for report in reports:
        text = f"{printable(report.checkpoint)}: {sentence(report.reason)}"
        lines += _hanging(f"  {_verdict(report.verdict, style, pad=True)}  ", 11, text, style)
    tally = [(v, sum(r.verdict is v for r in reports)) for v in Verdict]
    words = ", ".join(f"{amount:,} {verdict.value}" for verdict, amount in tally if amount)
    worst = worst_verdict(reports)
    lines += [
        "",
        *_hanging(
            f"{_verdict(worst, style)}  ", len(worst.value) + 2, f"of {len(reports):,} checkpoints {words}", style
        ),
    ]
    for run, found in (newest or {}).items():
        text = f"{printable(found)} is the newest that passed" if found else f"no checkpoint in {printable(run)} passed"
        lines += _hanging("", 0, text, style)
    return "\n".join(lines) + "\n"


class _Page:
    """One report on its way to text. Each method gives the lines of one block; a block without lines is left out."""

    def __init__(self, report: Report, style: Style, *, verbose: bool, quiet: bool) -> None:
        self.report = report
        self.style = style
        self.verbose = verbose
        self.quiet = quiet
        self.families: dict[str, list[Outcome]] = {}
        for outcome in report.outcomes:
            self.families.setdefault(outcome.rule.partition("/")[0], []).append(outcome)
        self.column = max([len(f) for f in self.families] + [10]) + 4

    def header(self) -> Iterator[str]:
        report = self.report
        yield from self._labelled("checkpoint", printable(report.checkpoint))
        if report.layout.name != "none" and not self.quiet:
            signs = ", ".join(printable(s) for s in report.layout.signs)
            yield from self._labelled("layout", report.layout.title + (f" ({signs})" if signs else ""))
        if not self.quiet:
            strict = ", strict" if report.ruleset.strict else ""
            narrowed = ", narrowed by --select or --exclude" if report.ruleset.narrowed else ""
            yield from self._labelled("ruleset", f"{printable(report.ruleset.name)}{strict}{narrowed}")

    def clean(self) -> Iterator[str]:
        """Families of which no rule failed or crashed, those left out of which none ran."""
        for family, outcomes in self.families.items():
            passed = [o for o in outcomes if o.status is Status.PASSED]
            if self.quiet or _is_wrong(outcomes) or not (passed or self.verbose):
                continue
            if self.verbose:
                yield self._row("passed" if passed else "skipped", family)
                yield from self._every(outcomes)
            else:
                yield from self._named("passed", family, f"{_number(len(passed), 'check')}: {_defects(passed)}")

    def wrong(self) -> Iterator[list[str]]:
        """A block for each family of which a rule failed or crashed."""
        for family, outcomes in self.families.items():
            if _is_wrong(outcomes):
                yield list(self._wrong(family, outcomes))

    def _wrong(self, family: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
        counts = _tally(outcomes)
        worst = next((k for k in ("crashed", "error", "warning") if counts[k]), "info")
        words = [_number(counts[k], k) for k in ("error", "warning") if counts[k]]
        words += [f"{counts[k]:,} {k}" for k in ("info", "crashed", "passed", "skipped") if counts[k]]
        yield from self._named(worst, family, ", ".join(words))
        if self.verbose:
            yield from self._every(outcomes)
            return
        for outcome in outcomes:
            yield from crash(outcome, self.style, verbose=False)
            yield from findings(outcome, self.style)
        passed = [o for o in outcomes if o.status is Status.PASSED]
        if passed and not self.quiet:
            yield from _hanging(f"  {self.style.severity('passed')}  ", len(INDENT), _defects(passed), self.style)

    def _every(self, outcomes: Sequence[Outcome]) -> Iterator[str]:
        for outcome in outcomes:
            took = _duration(outcome.seconds)
            if outcome.status is not Status.FAILED:
                yield title(outcome.status.value, outcome.rule, self.style, took)
            yield from findings(outcome, self.style, every=True, note=took)
            if outcome.options:
                options = ", ".join(f"{k}={v!r}" for k, v in outcome.options.items())
                yield from self.style.wrapped(f"options: {printable(options)}", INDENT)
            if outcome.status is Status.SKIPPED:
                yield from self.style.wrapped(sentence(outcome.reason or "no reason given"), INDENT)
            yield from list(crash(outcome, self.style, verbose=True))[1:]
            for finding in (f for f in outcome.findings if f.ignored is not None):
                yield from self.style.wrapped(f"ignored: {sentence(finding.message)} ({finding.ignored})", INDENT)

    def idle(self) -> Iterator[str]:
        """What was skipped, by reason, and what the ruleset ignores."""
        if self.quiet:
            return
        ignored: dict[tuple[str, str], int] = {}
        for finding in (f for o in self.report.outcomes for f in o.findings if f.ignored is not None):
            key = (finding.rule, finding.ignored or "")
            ignored[key] = ignored.get(key, 0) + 1
        yield from self._list("skipped", self._skipped())
        said = [f"{_number(n, 'finding')} of {rule}: {sentence(why)}" for (rule, why), n in ignored.items()]
        yield from self._list("ignored", said)

    def _skipped(self) -> list[str]:
        """Why rules were skipped; of many that do not apply, as most layouts leave, only how many."""
        told: dict[str, list[str]] = {}
        blocked: set[str] = set()
        for outcome in self.report.outcomes:
            if outcome.status is Status.SKIPPED and not self.verbose:
                why = outcome.reason or "no reason given"
                told.setdefault(why, []).append(outcome.rule)
                blocked |= {why} if outcome.blocked_by else set()
        more = []
        if len(told) - len(blocked) > _MOST_REASONS:
            idle = sum(len(rules) for why, rules in told.items() if why not in blocked)
            told = {why: rules for why, rules in told.items() if why in blocked}
            more = [f"{idle} rules do not apply (--verbose says why)"]
        return [f"{sentence(why)} ({_rules(rules)})" for why, rules in told.items()] + more

    def notices(self) -> Iterator[str]:
        """What is to be said about the run itself."""
        for notice in self.report.notices:
            kind = notice.severity.value
            yield from _hanging(f"{self.style.severity(kind)}  ", 9, self._notice(notice), self.style)
            if notice.crash and self.verbose:
                yield from traceback(notice.crash)

    def _notice(self, notice: Notice) -> str:
        if notice.crash is None:
            return sentence(notice.message)
        said = sentence(notice.message.partition("\n")[0])
        return said if self.verbose else f"{said}; --verbose shows the traceback"

    def end(self) -> Iterator[str]:
        """The counts and the answer."""
        counts, verdict = self.report.counts, self.report.verdict
        words = [f"{counts.passed:,} passed", _number(counts.warnings, "warning"), _number(counts.errors, "error")]
        words += [
            f"{amount:,} {word}" for amount, word in ((counts.infos, "info"), (counts.ignored, "ignored")) if amount
        ]
        words += [f"{counts.skipped:,} skipped"] + ([f"{counts.crashed:,} crashed"] if counts.crashed else [])
        yield from self.style.wrapped(f"{', '.join(words)} in {_duration(self.report.seconds)}")
        reason = sentence(self.report.reason)
        yield from _hanging(f"{_verdict(verdict, self.style)}  ", len(verdict.value) + 2, reason, self.style)

    def _list(self, name: str, texts: Sequence[str]) -> Iterator[str]:
        """Several texts behind one name."""
        for number, text in enumerate(texts):
            yield from self._named("skipped", name, text) if not number else self._labelled("", text)

    def _labelled(self, label: str, text: str) -> list[str]:
        return _hanging(f"{label:<{self.column}}", self.column, text, self.style)

    def _row(self, kind: str, name: str) -> str:
        return f"{self.style.symbol(kind)} {self.style.paint(name, 'bold')}"

    def _named(self, kind: str, name: str, text: str) -> list[str]:
        gap = " " * (self.column - 2 - len(name))
        return _hanging(self._row(kind, name) + gap, self.column, text, self.style)


def _rules(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= NAMED else _number(len(ids), "rule")


def _is_wrong(outcomes: Sequence[Outcome]) -> bool:
    return any(o.status in {Status.FAILED, Status.CRASHED} for o in outcomes)


def _tally(outcomes: Sequence[Outcome]) -> dict[str, int]:
    live = [f.severity for o in outcomes for f in o.findings if f.ignored is None]
    status = [o.status for o in outcomes]
    return {s.value: live.count(s) for s in Severity} | {s.value: status.count(s) for s in Status}


def _defects(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(o.rule.partition("/")[2] for o in outcomes)


def _hanging(prefix: str, columns: int, text: str, style: Style) -> list[str]:
    """Wrapped text behind a prefix, which is `columns` wide on the screen, whatever its colours."""
    lines = style.wrapped(text, " " * columns)
    return [prefix + lines[0][columns:], *lines[1:]]


def _verdict(verdict: Verdict, style: Style, *, pad: bool = False) -> str:
    word = verdict.value.upper()
    return style.paint(f"{word:<7}" if pad else word, "bold", _COLOUR[verdict])


def _number(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"

"""Outcomes -> counts, the verdict, and the verdict in one sentence. What could not be checked outranks what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt_rules.finding import Severity
from ckpt_rules.report import Counts, Notice, Outcome, Status, Verdict


@dataclass(frozen=True, slots=True)
class Situation:
    """What the sentence needs to know beside the outcomes.

    is_directory: whether there was a directory to look into
    narrowed:     whether rules of the ruleset were left out on purpose
    resume:       where training would start again, in words, or None
    purpose:      what a pass is to mean: `resume`, `load` or `publish`
    unknown:      why nobody understood the training state, or None
    files_alone:  whether the user asked that the files alone be judged
    """

    is_directory: bool = True
    narrowed: bool = False
    resume: str | None = None
    purpose: str = "resume"
    unknown: str | None = None
    files_alone: bool = False

    @property
    def asked(self) -> str:
        """To follow `cannot tell whether`."""
        return "the files are sound" if self._alone else f"it is safe to {self.purpose}"

    @property
    def denied(self) -> str:
        """What a failure says, to be followed by what was found."""
        if not self.is_directory:
            return f"there is nothing to {self.nothing}"
        return "the files are not sound" if self._alone else f"not safe to {self.purpose}"

    @property
    def _alone(self) -> bool:
        return self.files_alone and self.purpose == "resume"

    @property
    def nothing(self) -> str:
        """To follow `there is nothing to`."""
        return {"resume": "resume from"}.get(self.purpose, self.purpose)


def count(outcomes: Sequence[Outcome]) -> Counts:
    """Rules by status and findings by severity."""
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


def judge(
    outcomes: Sequence[Outcome], notices: Sequence[Notice], counts: Counts, situation: Situation
) -> tuple[Verdict, str]:
    """The answer, and why, in one sentence without a full stop."""
    if gap := _gap(outcomes, notices, counts):
        found = f"; it is not safe as far as it was checked: {_found(counts)}" if counts.errors else ""
        return Verdict.UNKNOWN, f"cannot tell whether {situation.asked}: {gap}{found}"
    if counts.errors:
        unknown = f"; {situation.unknown}" if situation.unknown else ""
        return Verdict.FAILED, f"{situation.denied}: {_found(counts)}{unknown}"
    if blocked := _unexplained(outcomes):
        return Verdict.UNKNOWN, f"cannot tell whether {situation.asked}: {blocked[0].reason}"
    if counts.skipped == len(outcomes):
        return (
            Verdict.UNKNOWN,
            f"cannot tell whether {situation.asked}: every selected rule was skipped",
        )
    if situation.unknown:
        warned = f", with {number(counts.warnings, 'warning')} to look at" if counts.warnings else ""
        return Verdict.UNKNOWN, f"cannot tell whether {situation.asked}: {situation.unknown}{warned}"
    if any(n.severity is Severity.ERROR for n in notices):
        return Verdict.FAILED, "the checkpoint passed, but the ruleset has warnings, and strict mode makes them errors"
    return Verdict.PASSED, _pass(counts, situation)


def _gap(outcomes: Sequence[Outcome], notices: Sequence[Notice], counts: Counts) -> str | None:
    """Why not everything was checked that should have been, or None."""
    stopped = sum(o.status is Status.CRASHED and o.reason is not None for o in outcomes)
    crashed = counts.crashed - stopped
    if counts.crashed:
        words = [f"{number(crashed, 'rule')} crashed"] if crashed else []
        return " and ".join(words + ([f"{number(stopped, 'rule')} took too long"] if stopped else []))
    if any(n.fatal for n in notices):
        return "a plugin failed"
    return None if outcomes else "no rule was selected"


def _unexplained(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Rules kept from their work by a file about which the run has nothing to say: it must not end as a pass."""
    explained = {f.place.path for o in outcomes for f in o.findings}
    return [o for o in outcomes if o.blocked_by is not None and o.blocked_by not in explained]


def _pass(counts: Counts, situation: Situation) -> str:
    warned = f", with {number(counts.warnings, 'warning')} to look at" if counts.warnings else ""
    if situation.narrowed:
        return f"nothing wrong in what the {number(counts.passed + counts.failed, 'selected rule')} checked{warned}"
    if situation.files_alone and situation.purpose == "resume":
        return f"the files are sound{warned}; whether training can be resumed was not asked"
    if situation.purpose != "resume":
        return f"safe to {situation.purpose}{warned}"
    if situation.resume:
        return f"safe to resume{warned}; {situation.resume}"
    return f"no problems found{warned}; this checkpoint does not record a resume position"


def _found(counts: Counts) -> str:
    warnings = f" and {number(counts.warnings, 'warning')}" if counts.warnings else ""
    return f"{number(counts.errors, 'error')}{warnings}"


def number(amount: int, noun: str) -> str:
    """`1 error`, `1,387 errors`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"

"""The verdict on one mutant: what we say of it against what its trainer makes of it."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.differential.resumes.allowed import ALLOWED
from tests.differential.resumes.mutants import Mutant

AGREED, RAISES, SILENT, ALARM, CRASH = "agreed", "missed, raises", "missed, silent", "false alarm", "we crash"
FAILURES = (RAISES, SILENT, ALARM, CRASH)


class Ours(NamedTuple):
    """exit_code: of `verify`; findings: errors and warnings as 'rule: message'; crash: what a rule, or all, died of."""

    exit_code: int
    findings: tuple[str, ...] = ()
    crash: str = ""

    @property
    def warned(self) -> bool:
        """Whether a person would have been told."""
        return self.exit_code != 0 or bool(self.findings)


class Theirs(NamedTuple):
    """raised: what the resume stopped with; differs: what came back otherwise than from the undamaged save."""

    raised: str = ""
    differs: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """kind: one of the constants above; reason: why that is known and meant to be so, '' where nothing says it."""

    kind: str
    reason: str = ""


def judge(trainer: str, mutant: Mutant, ours: Ours, theirs: Theirs) -> Verdict:
    """Compare two answers on the same save."""
    kind = _kind(ours, theirs)
    return Verdict(kind, "" if kind in (AGREED, CRASH) else reason_for(trainer, kind, mutant, ours, theirs))


def _kind(ours: Ours, theirs: Theirs) -> str:
    if ours.crash:
        return CRASH
    if ours.warned:
        return AGREED if theirs.raised or theirs.differs else ALARM
    if theirs.raised:
        return RAISES
    return SILENT if theirs.differs else AGREED


def reason_for(trainer: str, kind: str, mutant: Mutant, ours: Ours, theirs: Theirs) -> str:
    """Why a disagreement is meant to be; '' where nothing says so."""
    said = {RAISES: theirs.raised, SILENT: " ".join(theirs.differs), ALARM: "\n".join(ours.findings)}[kind]
    for entry in ALLOWED:
        known = trainer in entry.trainers.split() and kind == entry.kind
        if known and re.search(entry.mutants, str(mutant)) and re.search(entry.said, said):
            return entry.reason
    return ""

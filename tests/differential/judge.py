"""The verdict on one mutant."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.differential.allowed import ALLOWED, UNKNOWABLE
from tests.differential.answers import Answer
from tests.differential.compare import difference

MISS, CRASH, OVER, DIFFERS = "MISS", "CRASH", "OVER", "DIFFERS"
BOTH_REFUSE, BOTH_ACCEPT, STRICTER, UNKNOWN = "both refuse", "both accept", "stricter", "unknowable"
FAILURES = (MISS, CRASH, OVER, DIFFERS)


class Verdict(NamedTuple):
    """kind: one of the constants above; what: the mutants of one shape of fault share it."""

    kind: str
    what: str = ""


def judge(file_format: str, mine: Answer, other: Answer) -> Verdict:
    """Compare two answers on the same bytes."""
    if mine.faults and other.faults:
        return Verdict(BOTH_REFUSE)
    if other.faults:
        for formats, pattern, why in UNKNOWABLE:
            if file_format in formats.split() and re.search(pattern, other.faults[0][1]):
                return Verdict(UNKNOWN, why)
        return Verdict(MISS, _shape(*other.faults[0]))
    if mine.faults:
        reason = next(filter(None, (justification(file_format, *fault) for fault in mine.faults)), "")
        return Verdict(STRICTER, reason) if reason else Verdict(OVER, _shape(*mine.faults[0]))
    different = difference(file_format, mine.value, other.value)
    return Verdict(DIFFERS, _shape("", different)) if different else Verdict(BOTH_ACCEPT)


def justification(file_format: str, code: str, message: str) -> str:
    """Why we may report what the loader takes; '' where nothing says so."""
    for formats, known, pattern, why in ALLOWED:
        if file_format in formats.split() and code == known and re.search(pattern, message):
            return f"{code}: {why}"
    return ""


def _shape(code: str, message: str) -> str:
    """A fault with its numbers and names left out."""
    if "WeightsUnpickler error" in message:
        message = message[message.index("WeightsUnpickler error") :]
    first = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", message.strip()[:300].replace("\n", " "))
    return f"{code}: {re.sub(r'0x[0-9a-f]+|[0-9][0-9,]*', '#', first)[:120]}"

"""Where we and a trainer may disagree on a damaged save, and why that is meant to be so."""

from __future__ import annotations

from typing import NamedTuple


class Allowed(NamedTuple):
    """trainers: by name; kind: of the disagreement; mutants: a pattern for 'file | field | damage'; reason: one sentence.

    said: a pattern for what the trainer raised, the names of what came back otherwise, or our findings.
    """

    trainers: str
    kind: str
    mutants: str
    reason: str
    said: str = ""


ALLOWED: tuple[Allowed, ...] = ()

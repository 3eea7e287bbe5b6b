"""How the checks of weights/broken-orbax-item word what they find."""

from __future__ import annotations

from ckpt_rules import Place, Problem, Severity


def problem(path: str, message: str, severity: Severity | None = None) -> Problem:
    """A problem about a file; the severity is the rule's where it has none of its own."""
    help_ = "copy it again if the original is whole, or resume from an earlier step"
    return Problem(message=message, place=Place(path=path), help=help_, severity=severity)

"""What a loader said, as part of a sentence: one line, without advice, safe to print."""

from __future__ import annotations

_LONGEST = 300
_REFUSED = "Weights only load failed."
_MARK = "WeightsUnpickler error:"
_ADVICE = "Check the documentation of torch.load"
_OF_GLOBALS = ("Unsupported global:", "Trying to load unsupported GLOBAL", "must be imported to load")


def short(error: str) -> str:
    """Type and text of an exception, cut to its first line; of torch's weights-only loader, to what it stumbled over."""
    kind, refused, text = error.partition(_REFUSED)
    if refused:
        said = text.partition(_ADVICE)[0].rpartition(_MARK)[2]
        first = kind + (_lines(said) or [""])[-1]
    else:
        first = (_lines(error) or [""])[0]
    # Text of the checkpoint can be in it: no control character or terminal escape of it may reach a terminal.
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in first.rstrip(". "))
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]} …"


def refuses_a_global(error: str) -> bool:
    """Whether torch's weights-only loader met a name that it does not let through, or not before something is imported."""
    return _REFUSED in error and any(words in error for words in _OF_GLOBALS)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]

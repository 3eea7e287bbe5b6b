"""Numbers, lists and keys in messages."""

from __future__ import annotations

from collections.abc import Iterable

from ckpt_rules import state_dicts

_MOST = 5


def count(number: float, noun: str) -> str:
    """`1 update`, `1,270 updates`; nouns that end in s, x or sh take es."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "sh", "ch")) else "s"
    return f"{number:,} {noun}{ending}"


def listed(items: Iterable[object], most: int = _MOST) -> str:
    """`a, b and 7 more`."""
    words = [str(i) for i in items]
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most:,} more"


def inside(key: str, rest: str) -> str:
    """A key inside another; '' stands for the whole file."""
    return f"{key}.{rest}" if key else rest


shown = state_dicts.shown

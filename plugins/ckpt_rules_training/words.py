"""Numbers, lists and keys in messages."""

from __future__ import annotations

from collections.abc import Iterable

from ckpt_rules import Opaque, TensorInfo, state_dicts

_MOST = 5
_MOST_BITS = 256


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


def shown(value: object) -> str:
    """A stored value in a message: text in quotes, the rest as Python writes it, and not too much of it."""
    if isinstance(value, TensorInfo | Opaque):
        return state_dicts.described(value)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:  # Python refuses to write out thousands of digits
        return f"an integer of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

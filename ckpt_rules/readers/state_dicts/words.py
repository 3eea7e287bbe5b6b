"""What sentences about stored values have in common."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_rules.facts.tensors import Opaque, TensorInfo

_MOST_BITS = 256


def join(key: str, rest: str) -> str:
    """A key inside a key; '' stands for the whole file."""
    return f"{key}.{rest}" if key else rest


def described(value: object) -> str:
    """What a value is, in a few words."""
    match value:
        case None | bool():
            return str(value)
        case Opaque():
            return f"a pickled object of the class {value.type}"
        case TensorInfo():
            return f"a {value.dtype} tensor of shape {list(value.shape)}"
        case str():
            return "text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return f"a list of {len(value):,}"
        case Mapping():
            return "a dictionary"
    return f"a value of type {type(value).__name__}"


def shown(value: object) -> str:
    """A stored value in a message: text in quotes, the rest as Python writes it, and not too much of it."""
    if isinstance(value, TensorInfo | Opaque):
        return described(value)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:  # Python refuses to write out thousands of digits
        return f"an integer of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

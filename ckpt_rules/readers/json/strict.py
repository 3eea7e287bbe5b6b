"""JSON as strict as serde_json, which reads safetensors headers in the library: one member of an object at a time."""

from __future__ import annotations

import json
import math
import sys
from typing import NoReturn, cast

MAX_LEVELS = 126
_LARGEST = int(sys.float_info.max)


class StrictJsonError(ValueError):
    """Text that is not JSON, or that only Python's parser would take; `pos` is the character where that shows."""

    def __init__(self, reason: str, pos: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pos = pos


def scan_member(text: str, pos: int) -> tuple[str, object, int]:
    """The member `"name": value` at `pos`, and the position after it.

    Arrays come out as lists, objects as tuples of (key, value), so that duplicate keys are seen.
    """
    if not text.startswith('"', pos):
        raise StrictJsonError(f"expected a name in quotes but found {text[pos : pos + 1]!r}", pos)
    name, end = _scan(text, pos)
    colon = _skip(text, end)
    if not text.startswith(":", colon):
        raise StrictJsonError("expected ':' after the name", colon)
    value, end = _scan(text, _skip(text, colon + 1))
    _check(name, 1, pos)
    _check(value, 1, pos)
    return cast(str, name), value, end


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _parse_int(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


_decoder = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=_refuse_constant, parse_int=_parse_int)


def _scan(text: str, pos: int) -> tuple[object, int]:
    try:
        return _decoder.raw_decode(text, pos)
    except json.JSONDecodeError as error:
        raise StrictJsonError(error.msg[0].lower() + error.msg[1:], error.pos) from None
    except RecursionError:
        raise StrictJsonError("arrays or objects are nested too deeply", pos) from None
    except ValueError as error:  # NaN, or an integer of more than 4,300 digits
        raise StrictJsonError(str(error), pos) from None


def _skip(text: str, pos: int) -> int:
    while text[pos : pos + 1] in {" ", "\t", "\n", "\r"}:
        pos += 1
    return pos


def _check(value: object, level: int, pos: int) -> None:
    """Refuse what Python's parser takes and serde_json does not."""
    if isinstance(value, str):
        _check_text(value, pos)
    elif isinstance(value, float):
        if math.isinf(value):
            raise StrictJsonError("a number is too large for a double", pos)
    elif isinstance(value, int):
        if not -_LARGEST <= value <= _LARGEST:
            raise StrictJsonError("a number is too large for a double", pos)
    elif isinstance(value, list | tuple):
        if level > MAX_LEVELS:
            raise StrictJsonError(f"arrays or objects are nested more than {MAX_LEVELS} levels deep", pos)
        # A (key, value) pair is a level of its own only in our representation.
        for item in value if isinstance(value, list) else (part for pair in value for part in pair):
            _check(item, level + 1, pos)


def _check_text(text: str, pos: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StrictJsonError("a string holds half of a surrogate pair", pos) from None

"""JSON files: configurations, indexes, trainer states."""

from __future__ import annotations

import json

from ckpt_rules.facts.tensors import JsonFile
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.storage import Source

# Estimates of what CPython takes: a value with its place in a list or dictionary, and a character next to wide ones.
_VALUE_NBYTES, _WIDE_NBYTES = 100, 4
_BOM = b"\xef\xbb\xbf"


def read_json(source: Source, path: str, budget: Budget | None = None) -> JsonFile:
    """The parsed file. NaN and Infinity are taken, since trainers write them; a byte order mark is not, as in Python.

    budget: drawn on for what is read
    """
    log = ProblemLog()
    value = None
    try:
        value = _parse(source, budget or Budget())
    except Damage as damage:
        log.note(damage)
    return JsonFile(path, source.size, value, log.all())


def _parse(source: Source, budget: Budget) -> object:
    budget.check_size(source.size, "the file")
    raw = read_exactly(source, 0, source.size)
    if raw.startswith(_BOM):
        raise Damage("encoding", "the file starts with a byte order mark, which Python's json refuses", 0)
    room = budget.room
    passing = _charge(raw, budget)
    try:
        value = json.loads(_decode(raw))
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        what = error.msg[0].lower() + error.msg[1:]
        budget.room = room
        raise Damage("syntax", f"line {error.lineno:,}, column {error.colno:,}: {what}", offset) from None
    except RecursionError:
        raise Damage("limit", "arrays or objects are nested too deeply to be parsed") from None
    except ValueError:
        raise Damage("limit", "a number has more than the 4,300 digits that Python converts") from None
    if _is_deep(value, budget.limits.levels):
        message = f"arrays or objects are nested too deeply: more than {budget.limits.levels} levels"
        raise LimitError.past("levels", message)
    budget.room += passing
    return value


def _charge(raw: bytes, budget: Budget) -> int:
    """Draw on the budget for parsing a text; the bytes of it that are needed no longer when it is parsed."""
    # Every value but the first follows one of these.
    values = raw.count(b",") + raw.count(b"[") + raw.count(b"{") + raw.count(b":")
    text = len(raw) * (1 if raw.isascii() else _WIDE_NBYTES)
    what = f"a JSON text of {len(raw):,} bytes with about {values:,} values"
    budget.charge(len(raw) + 2 * text + _VALUE_NBYTES * values, what)
    return len(raw) + text


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Damage("encoding", f"byte {error.start:,} is not UTF-8", error.start) from None


def _is_deep(value: object, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            part
            for parent in level
            if isinstance(parent, dict | list)
            for part in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True

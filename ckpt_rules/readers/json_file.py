"""JSON files: configurations, indexes, trainer states."""

from __future__ import annotations

import json

from ckpt_rules.facts.tensors import JsonFile
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.storage import Source

MAX_NBYTES = 64 << 20
MAX_VALUES = 3_000_000
MAX_LEVELS = 200
_BOM = b"\xef\xbb\xbf"


def read_json(source: Source, path: str) -> JsonFile:
    """The parsed file. NaN and Infinity are taken, since trainers write them; a byte order mark is not, as in Python."""
    log = ProblemLog()
    value = None
    try:
        value = _parse(source)
    except Damage as damage:
        log.note(damage)
    return JsonFile(path, source.size, value, log.all())


def _parse(source: Source) -> object:
    if source.size > MAX_NBYTES:
        raise Damage("limit", f"the file has {source.size:,} bytes, more than the {MAX_NBYTES:,} that are read")
    raw = read_exactly(source, 0, source.size)
    if raw.startswith(_BOM):
        raise Damage("encoding", "the file starts with a byte order mark, which Python's json refuses", 0)
    # Every value but the first follows one of these; an empty list takes 20 times its bytes in the file.
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise Damage("limit", f"the file holds more than {MAX_VALUES:,} values")
    try:
        value = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise Damage("encoding", f"byte {error.start:,} is not UTF-8", error.start) from None
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        what = error.msg[0].lower() + error.msg[1:]
        raise Damage("syntax", f"line {error.lineno:,}, column {error.colno:,}: {what}", offset) from None
    except RecursionError:
        raise Damage("limit", "arrays or objects are nested too deeply to be parsed") from None
    except ValueError:
        raise Damage("limit", "a number has more than the 4,300 digits that Python converts") from None
    if _is_deep(value):
        raise Damage("limit", f"arrays or objects are nested too deeply: more than {MAX_LEVELS} levels")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
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

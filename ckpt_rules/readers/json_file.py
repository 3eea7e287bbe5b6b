"""JSON files: configurations, indexes, trainer states."""

from __future__ import annotations

import json

from ckpt_rules.facts.tensors import JsonFile, ReadProblem
from ckpt_rules.storage import Source

MAX_NBYTES = 64 << 20


def read_json(source: Source, path: str) -> JsonFile:
    """The parsed file. NaN and Infinity are taken, since trainers write them; a byte order mark is not, as in Python."""

    def broken(code: str, message: str, offset: int | None = None) -> JsonFile:
        return JsonFile(path, source.size, None, (ReadProblem(code, message, offset),))

    if source.size > MAX_NBYTES:
        return broken("limit", f"the file has {source.size:,} bytes, more than the {MAX_NBYTES:,} that are read")
    raw = source.read(0, source.size)
    if raw.startswith(b"\xef\xbb\xbf"):
        return broken("encoding", "the file starts with a byte order mark, which Python's json refuses", 0)
    try:
        return JsonFile(path, source.size, json.loads(raw.decode()))
    except UnicodeDecodeError as error:
        return broken("encoding", f"byte {error.start:,} is not UTF-8", error.start)
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        what = error.msg[0].lower() + error.msg[1:]
        return broken("syntax", f"line {error.lineno}, column {error.colno}: {what}", offset)
    except RecursionError:
        return broken("limit", "arrays or objects are nested too deeply to be parsed")
    except ValueError as error:  # an integer with more digits than Python converts
        return broken("limit", str(error))

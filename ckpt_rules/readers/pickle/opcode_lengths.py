"""Where the opcodes in a stretch of a pickle start, for those that plain objects are made of."""

from __future__ import annotations

MEMOIZE = b"\x94"

_BARE = frozenset(b"(.}])NaebsutR\x81\x85\x86\x87\x88\x89\x93\x94")
_FIXED = {code[0]: size for code, size in ((b"K", 1), (b"M", 2), (b"J", 4), (b"h", 1), (b"j", 4), (b"G", 8))}
_PREFIXED = {code[0]: size for code, size in ((b"\x8c", 1), (b"X", 4), (b"\x8a", 1))}


def op_starts(data: bytes, start: int, end: int) -> list[int] | None:
    """The bytes at which opcodes start; None where one is of another kind, or reaches past the end."""
    starts, pos = [], start
    while pos < end:
        starts.append(pos)
        code = data[pos]
        if code in _BARE:
            pos += 1
        elif code in _FIXED:
            pos += 1 + _FIXED[code]
        elif code in _PREFIXED:
            size = _PREFIXED[code]
            pos += 1 + size + int.from_bytes(data[pos + 1 : pos + 1 + size], "little")
        else:
            return None
    return starts if pos == end else None


def asked_for(data: bytes, starts: list[int]) -> list[int]:
    """The numbers of the values of the memo that opcodes ask for."""
    return [int.from_bytes(data[at + 1 : at + 1 + _FIXED[data[at]]], "little") for at in starts if data[at] in b"hj"]

"""Texts and numbers in the pairs of a `.metadata`."""

from __future__ import annotations

from ckpt_rules.readers.pickle.opcode_lengths import MEMOIZE
from ckpt_rules.readers.pickle.sparse_memo import SparseMemo

NEW_TEXT, _SHORT_GET, _GET, _LONG, _SIGNED = b"\x8chj\x8aJ"
NUMBER_NBYTES = {b"K"[0]: 1, b"M"[0]: 2, b"J"[0]: 4}


def text_at(data: bytes, pos: int, memo: SparseMemo) -> tuple[str | None, int, bool]:
    """The text that is put on the stack at a byte, the byte behind that, and whether the text is new in the memo.

    None for what is not text, and for texts that are longer, or not of ASCII letters: few are.
    """
    code = data[pos]
    if code == NEW_TEXT:
        end = pos + 2 + data[pos + 1]
        raw = data[pos + 2 : end]
        if data[end : end + 1] == MEMOIZE and raw.isascii():
            return raw.decode(), end + 1, True
        return None, pos, False
    if code == _GET:
        value, end = memo[int.from_bytes(data[pos + 1 : pos + 5], "little")], pos + 5
    elif code == _SHORT_GET:
        value, end = memo[data[pos + 1]], pos + 2
    else:
        return None, pos, False
    return (value, end, False) if isinstance(value, str) else (None, pos, False)


def number_of(raw: bytes) -> int:
    """The number that one opcode puts on the stack."""
    if raw[0] == _LONG:
        return int.from_bytes(raw[2:], "little", signed=True)
    return int.from_bytes(raw[1:], "little", signed=raw[0] == _SIGNED)

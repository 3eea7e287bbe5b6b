"""Zip archives that begin after other bytes: programs that unpack themselves, and what is hidden behind another format."""

from __future__ import annotations

import struct

from ckpt_rules.storage import Source

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_NBYTES = 20
_END64_MARK = b"PK\x06\x06"
_END_MARK, _ENTRY_MARK = b"PK\x05\x06", b"PK\x01\x02"
_MOST_COMMENT = 1 << 10


def zip_after_other_bytes(source: Source, head: bytes) -> int | None:
    """The byte from which the offsets of the archive count that a file ends with; None where no other bytes precede one."""
    if head.startswith(b"PK"):
        return None
    from_byte = max(0, source.size - _END.size - _END64.size - _LOCATOR_NBYTES - _MOST_COMMENT)
    tail = source.read(from_byte, source.size - from_byte)
    at = tail.rfind(_END_MARK)
    if at < 0 or len(tail) - at < _END.size:
        return None
    *_, nbytes, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        return None
    before = at - _LOCATOR_NBYTES - _END64.size
    if before >= 0 and tail.startswith(_END64_MARK, before):  # as torch writes one always
        at = before
        *_, nbytes, offset = _END64.unpack_from(tail, at)
    directory = from_byte + at - int(nbytes)
    if directory < offset or source.read(directory, len(_ENTRY_MARK)) != _ENTRY_MARK:
        return None
    return directory - int(offset)

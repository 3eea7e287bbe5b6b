"""Frames of zstd, walked from header to header without unpacking their data.

https://datatracker.ietf.org/doc/html/rfc8878#name-zstandard-frames
"""

from __future__ import annotations

from collections.abc import Callable

from ckpt_rules.facts.ocdbt import ZstdFrame

_MAGIC = b"\x28\xb5\x2f\xfd"
_HEADER_NBYTES, _BLOCK_HEADER_NBYTES, _CHECKSUM_NBYTES = 18, 3, 4
_ID_NBYTES, _CONTENT_NBYTES = (0, 1, 2, 4), (0, 2, 4, 8)
_RLE, _RESERVED = 1, 3


def zstd_frame(data: bytes, most: int = 1_000) -> ZstdFrame:
    """The frame that bytes hold."""
    return walk_frame(lambda offset, length: data[offset : offset + length], len(data), most)


def walk_frame(read: Callable[[int, int], bytes], nbytes: int, most: int) -> ZstdFrame:
    """The frame that takes `nbytes` bytes, walked over at most so many blocks; `read` gives a range of it."""
    head = read(0, _HEADER_NBYTES)
    if not head.startswith(_MAGIC):
        return ZstdFrame(fault="does not begin as zstd does" + (", but with zero bytes" if not any(head[:4]) else ""))
    told = _header(head)
    if told is None:
        return ZstdFrame(fault="ends within the header of its zstd frame")
    at, content, checksum = told
    blocks, last = 0, False
    while not last:
        if blocks >= most:
            return ZstdFrame(content, blocks=blocks)
        header = read(at, _BLOCK_HEADER_NBYTES)
        if len(header) < _BLOCK_HEADER_NBYTES or at + _BLOCK_HEADER_NBYTES > nbytes:
            return ZstdFrame(content, fault=_short(nbytes, at + _BLOCK_HEADER_NBYTES), blocks=blocks)
        word = int.from_bytes(header, "little")
        last, kind = bool(word & 1), word >> 1 & 3
        if kind == _RESERVED:
            return ZstdFrame(content, fault=f"holds a zstd block of no kind at byte {at:,} of its frame", blocks=blocks)
        at += _BLOCK_HEADER_NBYTES + (1 if kind == _RLE else word >> 3)
        blocks += 1
        if at > nbytes:
            return ZstdFrame(content, fault=_short(nbytes, at), blocks=blocks)
    end = at + (_CHECKSUM_NBYTES if checksum else 0)
    return ZstdFrame(content, end, _short(nbytes, end) if end > nbytes else None, blocks)


def _short(nbytes: int, needed: int) -> str:
    return f"ends after {nbytes:,} bytes, where its zstd frame takes at least {needed:,}"


def _header(head: bytes) -> tuple[int, int | None, bool] | None:
    """Where the blocks begin, the content's size, whether a checksum follows them; None where the header is cut."""
    if len(head) < 6:
        return None
    descriptor = head[4]
    single, size_flag = bool(descriptor & 0x20), descriptor >> 6
    at = 5 + (0 if single else 1) + _ID_NBYTES[descriptor & 3]
    width = 1 if single and not size_flag else _CONTENT_NBYTES[size_flag]
    if at + width > len(head):
        return None
    content = int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0) if width else None
    return at + width, content, bool(descriptor & 4)

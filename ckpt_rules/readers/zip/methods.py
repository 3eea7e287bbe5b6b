"""The ways to compress an entry of a zip archive that Python's `zipfile` undoes; torch itself knows the first two only.

Format: APPNOTE.TXT 6.3, sections 4.4.5 and 5.8.8.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib

_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
UNPACKED_HERE = frozenset({_STORED, _DEFLATED, _BZIP2, _LZMA})

_LZMA_HEAD = struct.Struct("<2sH")
_DICTIONARY_NBYTES = 4
_MOST_DICTIONARY = 1 << 26


class BadEntry(ValueError):
    """The bytes of an entry are not compressed as its directory says."""


def unpack(raw: bytes, method: int, most: int) -> bytes:
    """What the bytes of an entry unpack to, at most `most` bytes of it; they themselves where the method is not known."""
    try:
        if method == _DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, most)
        if method == _BZIP2:
            return bz2.BZ2Decompressor().decompress(raw, most)
        return _lzma(raw, most) if method == _LZMA else raw
    except (zlib.error, OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise BadEntry(str(error)) from None


def _lzma(raw: bytes, most: int) -> bytes:
    """LZMA without a header of its own: its version and properties stand before it."""
    if len(raw) < _LZMA_HEAD.size:
        raise BadEntry("the properties of LZMA are missing")
    _, nbytes = _LZMA_HEAD.unpack_from(raw)
    properties = raw[_LZMA_HEAD.size : _LZMA_HEAD.size + nbytes]
    if nbytes != 1 + _DICTIONARY_NBYTES or len(properties) < nbytes:
        raise BadEntry(f"the properties of LZMA take {nbytes:,} bytes, not {1 + _DICTIONARY_NBYTES}")
    first, dictionary = properties[0], int.from_bytes(properties[1:], "little")
    if dictionary > _MOST_DICTIONARY:
        raise BadEntry(f"the dictionary of LZMA takes {dictionary:,} bytes, more than {_MOST_DICTIONARY:,}")
    filters = [
        {"id": lzma.FILTER_LZMA1, "lc": first % 9, "lp": first // 9 % 5, "pb": first // 45, "dict_size": dictionary}
    ]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, None, filters).decompress(raw[_LZMA_HEAD.size + nbytes :], most)

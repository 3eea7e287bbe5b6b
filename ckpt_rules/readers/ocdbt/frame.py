"""The frames of OCDBT: a magic number, a length, a body that may be compressed, CRC-32C; and a cursor over a body.

https://google.github.io/tensorstore/kvstore/ocdbt/index.html
"""

from __future__ import annotations

from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage
from ckpt_rules.readers.ocdbt.crc32c import crc32c

MANIFEST, NODE = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
_NAMES = {MANIFEST: "manifest", NODE: "B+tree node"}
_HEADER_NBYTES, _CRC_NBYTES = 12, 4
_SHARE = 4
"""Of the memory that is left: for the window, the pieces, the whole, and what is kept of it."""

_VARINT_BITS = 64
MOST_ENTRIES = 1 << 20
"""That of the format."""


class Cursor:
    """Reads the body of a frame from front to back; Damage where it ends too early. `start` is the frame's byte in its file."""

    __slots__ = ("at", "data", "start")

    def __init__(self, data: bytes, at: int = 0, start: int = 0) -> None:
        self.data = data
        self.at = at
        self.start = start

    def damage(self, reason: str) -> Damage:
        """The error for what is wrong here."""
        return Damage("ocdbt", f"{reason} at byte {self.at:,} of the body of the frame", self.start)

    def take(self, length: int) -> bytes:
        """The next bytes."""
        end = self.at + length
        if end > len(self.data):
            raise self.damage(f"the body ends after {len(self.data):,} bytes, where {length:,} more were to be read")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self) -> int:
        """A number of seven bits in each byte, the lowest first."""
        value = shift = 0
        while shift < _VARINT_BITS:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise self.damage("a number takes more than ten bytes")

    def varints(self, count: int) -> list[int]:
        """A column of them; each takes a byte or more, and a node has at most a million entries."""
        if count > MOST_ENTRIES:
            raise LimitError(
                f"a column has {count:,} entries, more than the {MOST_ENTRIES:,} that are read", self.start
            )
        if count > len(self.data) - self.at:
            raise self.damage(f"{count:,} numbers were to be read where {len(self.data) - self.at:,} bytes are left")
        return [self.varint() for _ in range(count)]


def body_of(frame: bytes, magic: bytes, start: int, budget: Budget) -> Cursor:
    """The body of a whole frame, its checksum checked; Damage, with the frame's byte in its file, where something is wrong."""
    name = _NAMES[magic]
    if not frame.startswith(magic):
        zeros = ", but zero bytes" if frame and not any(frame[:4]) else ""
        raise Damage("ocdbt-magic", f"there is no {name} of OCDBT{zeros}", start)
    length = int.from_bytes(frame[4:_HEADER_NBYTES], "little")
    if length != len(frame):
        raise Damage("ocdbt-length", f"the {name} takes {len(frame):,} bytes where its frame says {length:,}", start)
    if len(frame) < _HEADER_NBYTES + _CRC_NBYTES:
        raise Damage("ocdbt-length", f"the {name} has {len(frame):,} bytes, which no frame does", start)
    told, is_ = int.from_bytes(frame[-_CRC_NBYTES:], "little"), crc32c(frame[:-_CRC_NBYTES])
    if told != is_:
        raise Damage("ocdbt-crc", f"the {name} has CRC-32C {is_:08x} where it says {told:08x}", start)
    cursor = Cursor(frame[:-_CRC_NBYTES], _HEADER_NBYTES, start)
    if version := cursor.varint():
        raise LimitError(f"version {version:,} of a {name} is not known here", start)
    compression = cursor.varint()
    if compression > 1:
        raise LimitError(f"compression {compression:,} of a {name} is not known here", start)
    return Cursor(_unpacked(cursor, budget), 0, start) if compression else cursor


def _unpacked(cursor: Cursor, budget: Budget) -> bytes:
    import zstandard

    packed = cursor.data[cursor.at :]
    most = budget.room // _SHARE
    parts, length = [], 0
    try:
        if (window := zstandard.get_frame_parameters(packed).window_size) > most:
            raise _too_large(window, budget, cursor.start)
        reader = zstandard.ZstdDecompressor(max_window_size=most).stream_reader(packed)
        while part := reader.read(MIB):
            parts.append(part)
            length += len(part)
            if length > most:
                raise _too_large(length, budget, cursor.start)
    except (zstandard.ZstdError, MemoryError) as error:
        raise Damage("ocdbt-zstd", f"the body can't be unpacked: {error}", cursor.start) from None
    return b"".join(parts)


def _too_large(nbytes: int, budget: Budget, start: int) -> LimitError:
    most = budget.room // _SHARE
    reason = f"a frame of OCDBT unpacks into {nbytes:,} bytes or more, where {most:,} are read"
    return LimitError.past("memory", reason, start)

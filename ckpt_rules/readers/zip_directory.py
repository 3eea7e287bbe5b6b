"""The directory of a zip archive, read as torch reads it: the central directory alone says what there is.

Format: APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (end records).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.storage import Source

MAX_DIRECTORY_NBYTES = 64 << 20
STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct(
    "<4s5H3L2H"
)  # signature, version, flags, method, time, date, CRC, sizes (2), lengths of name, extra
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # the same with versions (2), then comment length, disk, attributes (2), offset
_END = struct.Struct(
    "<4s4H2LH"
)  # signature, disks (2), entries here and in all, directory size and offset, comment length
_END64 = struct.Struct("<4sQ2H2L4Q")  # signature, size, versions (2), disks (2), entries (2), directory size and offset
_LOCATOR = struct.Struct("<4sLQL")  # signature, disk, offset of the zip64 end record, disks
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64_SIGNATURE, _LOCATOR_SIGNATURE = b"PK\x06\x06", b"PK\x06\x07"
_MAX_COMMENT = 0xFFFF
_SEE_ZIP64 = 0xFFFFFFFF
_ZIP64_FIELD = 1
_ENCRYPTED_OR_PATCHED = 0x2061
_DOS_DIRECTORY = 0x10


class ZipEntry(NamedTuple):
    """One entry of the central directory.

    nbytes, packed: bytes of the content, and as they lie in the file
    header, data:   byte offsets of the local header and of the content; `data` is None where the local header is damaged
    """

    name: str
    method: int
    flags: int
    nbytes: int
    packed: int
    header: int
    data: int | None


@dataclass(frozen=True, slots=True)
class ZipDirectory:
    """All entries in the order of the directory, and what is wrong with them."""

    entries: tuple[ZipEntry, ...]
    problems: tuple[ReadProblem, ...]


def read_zip_directory(source: Source) -> ZipDirectory:
    """The directory of an archive; without any entry where it can't be found."""
    try:
        start, nbytes, count = _locate(source)
        raw = _central(source, start, nbytes, count)
    except FormatError as error:
        code = "cut-short" if error.offset is None else "directory"
        return ZipDirectory((), (ReadProblem(code, error.reason, error.offset),))
    problems: list[ReadProblem] = []
    entries = [_with_data(source, entry, problems) for entry in raw]
    problems += _overlaps(entries, start)
    return ZipDirectory(tuple(entries), tuple(problems))


def _locate(source: Source) -> tuple[int, int, int]:
    """Offset, size in bytes and number of entries of the central directory."""
    tail_start = max(0, source.size - _MAX_COMMENT - _END.size)
    tail = source.read(tail_start, source.size - tail_start)
    at = tail.rfind(_END_SIGNATURE, 0, max(0, len(tail) - _END.size + len(_END_SIGNATURE)))
    if at < 0:
        raise FormatError(
            f"the zip directory that belongs at the end of the file is missing: the file was cut short, at "
            f"{source.size:,} bytes"
        )
    _, disk, first, here, count, nbytes, start, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if located := _locate64(source, end):
        start, nbytes, count, end = located
    elif disk or first or here != count:
        raise FormatError("the end record of the zip directory speaks of several disks", end)
    if start + nbytes > end:
        raise FormatError(
            f"the zip directory should span bytes {start:,} to {start + nbytes:,}, but its end record lies at {end:,}",
            end,
        )
    return start, nbytes, count


def _locate64(source: Source, end: int) -> tuple[int, int, int, int] | None:
    """The same from the zip64 end record, where there is one; it outranks the 32-bit record."""
    locator = source.read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if len(locator) < _LOCATOR.size or not locator.startswith(_LOCATOR_SIGNATURE):
        return None
    _, _, at, disks = _LOCATOR.unpack(locator)
    record = source.read(at, _END64.size) if at < source.size else b""
    if len(record) < _END64.size or not record.startswith(_END64_SIGNATURE):
        raise FormatError(f"the zip64 end record should lie at byte {at:,} and does not", end - _LOCATOR.size)
    *_, disk, first, here, count, nbytes, start = _END64.unpack(record)
    if disk or first or disks != 1 or here != count:
        raise FormatError("the zip64 end record speaks of several disks", at)
    return start, nbytes, count, at


def _central(source: Source, start: int, nbytes: int, count: int) -> list[tuple[ZipEntry, bytes, int]]:
    if nbytes > MAX_DIRECTORY_NBYTES:
        raise FormatError(
            f"the zip directory takes {nbytes:,} bytes, more than the {MAX_DIRECTORY_NBYTES:,} allowed", start
        )
    directory = source.read(start, nbytes)
    entries, at = [], 0
    for number in range(count):
        if directory[at : at + 4] != _CENTRAL_SIGNATURE or at + _CENTRAL.size > len(directory):
            raise FormatError(
                f"entry {number + 1:,} of {count:,} in the zip directory should start at byte {start + at:,} and does not",
                start + at,
            )
        fields = _CENTRAL.unpack_from(directory, at)
        flags, method, packed, size, header = fields[3], fields[4], fields[8], fields[9], fields[16]
        name_n, extra_n, comment_n, disk = fields[10:14]
        if disk > 1:
            raise FormatError(f"entry {number + 1:,} of the zip directory lies on disk {disk:,}", start + at)
        at += _CENTRAL.size
        name = directory[at : at + name_n]
        extra = directory[at + name_n : at + name_n + extra_n]
        if _SEE_ZIP64 in (size, packed, header):
            size, packed, header = _zip64(extra, size, packed, header, start + at)
        at += name_n + extra_n + comment_n
        if at > len(directory):
            raise FormatError(
                f"entry {number + 1:,} of the zip directory passes the directory's end", start + len(directory)
            )
        entry = ZipEntry(name.decode("utf-8", "replace"), method, flags, size, packed, header, None)
        entries.append((entry, name, fields[15]))
    return entries


def _zip64(extra: bytes, size: int, packed: int, header: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit values of those fields that are all ones, from the extra field 1, in this fixed order."""
    at = 0
    while at + 4 <= len(extra):
        tag, nbytes = struct.unpack_from("<HH", extra, at)
        if tag == _ZIP64_FIELD:
            wide = iter(struct.unpack_from(f"<{min(nbytes, len(extra) - at - 4) // 8}Q", extra, at + 4))
            try:
                return (
                    next(wide) if size == _SEE_ZIP64 else size,
                    next(wide) if packed == _SEE_ZIP64 else packed,
                    next(wide) if header == _SEE_ZIP64 else header,
                )
            except StopIteration:
                break
        at += 4 + nbytes
    raise FormatError("a zip entry announces 64-bit sizes and does not hold them", offset)


def _with_data(source: Source, raw: tuple[ZipEntry, bytes, int], problems: list[ReadProblem]) -> ZipEntry:
    """The entry with the offset of its content, which only its local header tells."""
    entry, name, attributes = raw
    if wrong := _refused(entry, name, attributes):
        problems.append(ReadProblem("entry-header", wrong, entry.header, entry.name))
    header = source.read(entry.header, _LOCAL.size + len(name)) if entry.header < source.size else b""
    fault = None
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_SIGNATURE):
        fault = f"the entry's own header should lie at byte {entry.header:,} and does not"
    if fault is None:
        name_n, extra_n = _LOCAL.unpack_from(header)[-2:]
        data = entry.header + _LOCAL.size + name_n + extra_n
        if data + entry.packed <= source.size:
            if header[_LOCAL.size :] != name:
                shown = header[_LOCAL.size :].decode("utf-8", "replace")
                message = f"the entry's own header calls it '{shown}'"
                problems.append(ReadProblem("entry-header", message, entry.header, entry.name, fatal=False))
            return entry._replace(data=data)
        fault = f"its {entry.packed:,} bytes from byte {data:,} pass the end of the file, {source.size:,} bytes long"
    problems.append(ReadProblem("entry-header", fault, entry.header, entry.name))
    return entry


def _refused(entry: ZipEntry, name: bytes, attributes: int) -> str | None:
    """What the directory says of an entry that torch does not take."""
    if entry.flags & _ENCRYPTED_OR_PATCHED:
        return "the entry is encrypted or patched, which torch does not read"
    if attributes & _DOS_DIRECTORY and entry.nbytes:
        return f"the entry is marked as a directory and has {entry.nbytes:,} bytes"
    if entry.method not in (STORED, DEFLATED):
        return f"the entry is compressed with method {entry.method}, which torch does not read"
    if entry.method == STORED and entry.packed != entry.nbytes:
        return f"the entry is stored as it is, in {entry.packed:,} bytes that should be {entry.nbytes:,}"
    try:
        name.decode()
    except UnicodeDecodeError:
        return "the entry's name is not UTF-8"
    return None


def _overlaps(entries: list[ZipEntry], directory: int) -> list[ReadProblem]:
    """Entries that share bytes with the entry before them or with the directory: two readers would see two files."""
    spans = sorted((e.header, e.data + e.packed, e.name) for e in entries if e.data is not None)
    after = [*spans[1:], (directory, directory, "the zip directory")]
    return [
        ReadProblem(
            "entry-header",
            f"the entry ends at byte {end:,}, inside '{next_name}', which starts at {start:,}",
            begin,
            name,
        )
        for (begin, end, name), (start, _, next_name) in zip(spans, after, strict=True)
        if end > start
    ]

"""The directory of a zip archive, read as torch reads it: the central directory alone says what there is.

Format: APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (end records).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

from ckpt_rules.facts.tensors import Archive, ArchiveEntry
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.readers.zip.oddities import (
    ENCRYPTED_OR_PATCHED,
    SEE_ZIP64,
    Listed,
    note_contradiction,
    note_rest,
    note_strays,
)
from ckpt_rules.storage import Source

STORED, DEFLATED = 0, 8
LOCAL_SIGNATURE = b"PK\x03\x04"

# Signature, version, flags, method, time, date, CRC, sizes packed and not, lengths of name and extra field.
LOCAL = struct.Struct("<4s5H3L2H")
# Signature, versions (2), flags, method, time, date, CRC, sizes packed and not, lengths of name, extra field and comment,
# disk, attributes (2), offset of the local header.
_CENTRAL = struct.Struct("<4s6H3L5H2L")
# Signature, disks (2), entries on this disk and in all, size and offset of the directory, length of the comment.
_END = struct.Struct("<4s4H2LH")
# Signature, size, versions (2), disks (2), entries on this disk and in all, size and offset of the directory.
_END64 = struct.Struct("<4sQ2H2L4Q")
# Signature, disk, offset of the zip64 end record, disks.
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x01\x02", b"PK\x05\x06"
_END64_SIGNATURE, _LOCATOR_SIGNATURE = b"PK\x06\x06", b"PK\x06\x07"
_END64_REST = _END64.size - 12
_LENGTHS = struct.Struct("<2H")
_LENGTHS_AT = 26
_MAX_COMMENT = 0xFFFF
_WINDOW_NBYTES, _WINDOW_STEP = 4_096, 4_093  # in which torch looks for the end record, from the last backwards
_ZIP64_FIELD = 1
_DOS_DIRECTORY = 0x10
_ENTRY_NBYTES = 600  # what one entry takes in memory while the directory is read


class ZipEntry(NamedTuple):
    """One entry of the central directory.

    crc:            CRC-32 of the content; 0 also where the writer was told not to compute it
    packed, nbytes: bytes of the content as it lies in the file, and decompressed
    header, data:   byte offsets of the local header and of the content; `data` is None where the local header is damaged
    """

    name: str
    method: int
    crc: int
    packed: int
    nbytes: int
    header: int
    data: int | None


_new_entry = cast("Callable[[tuple[object, ...]], ZipEntry]", partial(tuple.__new__, ZipEntry))


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where the central directory lies and how many entries it has."""

    start: int
    nbytes: int
    count: int


class _Listing(NamedTuple):
    """Where the directory lies, and the bytes from its end record on that belong to no record."""

    extent: _Extent
    behind: int
    comment: int


def read_archive(source: Source, path: str, budget: Budget) -> Archive:
    """The entries of any zip file, none of which is looked into."""
    log, room = ProblemLog(), budget.room
    entries = read_zip_directory(source, log, budget)
    budget.room = room
    found = tuple(ArchiveEntry(e.name, e.data, e.packed, e.crc, e.method == STORED) for e in entries)
    return Archive(path, source.size, found, log.all())


def read_zip_directory(source: Source, log: ProblemLog, budget: Budget) -> list[ZipEntry]:
    """All entries in the order of the directory; none where it can't be read, and then the log says why.

    budget: drawn on for them; the caller gives that back
    """
    try:
        listing = _locate(source)
        extent = listing.extent
        _check_extent(extent, budget)
        listed = list(_central(source, extent))
    except Damage as damage:
        log.note(damage)
        return []
    entries = [_with_data(source, entry, log) for entry in listed]
    _check_overlaps(entries, extent.start, log)
    if not log.fatal:
        note_strays([(e.name, e.header, (e.data or e.header) + e.packed) for e in entries], extent.start, log)
        note_rest(listing.comment + max(listing.behind, 0), source.size, log)
    return entries


def _locate(source: Source) -> _Listing:
    tail_start = max(0, source.size - _MAX_COMMENT - _END.size)
    tail = read_exactly(source, tail_start, source.size - tail_start)
    at = tail.rfind(_END_SIGNATURE, 0, max(0, len(tail) - _END.size + len(_END_SIGNATURE)))
    if at < 0:
        _fail_without_end(tail, source.size)
    _, disk, first, here, count, nbytes, start, comment = _END.unpack_from(tail, at)
    end = tail_start + at
    _check_search(end, source.size)
    behind = source.size - end - _END.size - comment
    extent = _Extent(start, nbytes, count)
    if located := _locate64(source, end):
        extent, end = located
    elif disk or first or here != count:
        raise Damage("directory", "the end record of the zip directory speaks of several disks", end)
    if extent.start + extent.nbytes > end:
        span = f"bytes {extent.start:,} to {extent.start + extent.nbytes:,}"
        raise Damage("directory", f"the zip directory should span {span}, but its end record lies at {end:,}", end)
    return _Listing(extent, behind, comment)


def _check_search(end: int, size: int) -> None:
    """Raise where torch does not find the end record, since a window would begin before the file does."""
    steps = -(-max(0, size - _WINDOW_NBYTES - end) // _WINDOW_STEP)
    if steps and size - _WINDOW_NBYTES - _WINDOW_STEP * steps < 0:
        message = f"the end record of the zip directory lies {size - end:,} bytes before the end, where torch.load fails to find it"
        raise Damage("directory", message, end)


def _check_extent(extent: _Extent, budget: Budget) -> None:
    most = budget.limits.entries
    if extent.count > most:
        message = f"the zip directory has {extent.count:,} entries; at most {most:,} are read"
        raise LimitError.past("entries", message, extent.start)
    budget.check_size(extent.nbytes, "the zip directory")
    budget.charge(_ENTRY_NBYTES * extent.count + extent.nbytes, f"a zip directory of {extent.count:,} entries")


def _fail_without_end(tail: bytes, size: int) -> None:
    if _CENTRAL_SIGNATURE in tail:
        raise Damage("no-directory", "the record that ends the zip directory is damaged or missing", size)
    raise Damage(
        "cut-short",
        f"the zip directory that belongs at the end of the file is missing: the file was cut short, at {size:,} bytes",
        size,
    )


def _locate64(source: Source, end: int) -> tuple[_Extent, int] | None:
    """The same from the zip64 end record, where there is one, and its own place; it outranks the 32-bit record."""
    locator = source.read(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if len(locator) < _LOCATOR.size or not locator.startswith(_LOCATOR_SIGNATURE):
        return None
    _, _, at, disks = _LOCATOR.unpack(locator)
    record = source.read(at, _END64.size) if at < source.size else b""
    if len(record) < _END64.size or not record.startswith(_END64_SIGNATURE):
        message = f"the zip64 end record should lie at byte {at:,} and does not"
        raise Damage("directory", message, end - _LOCATOR.size)
    _, rest, _, _, disk, first, here, count, nbytes, start = _END64.unpack(record)
    if rest < _END64_REST:
        raise Damage(
            "directory", f"the zip64 end record says that {rest:,} bytes are left of it, not {_END64_REST}", at
        )
    if disk or first or disks != 1 or here != count:
        raise Damage("directory", "the zip64 end record speaks of several disks", at)
    return _Extent(start, nbytes, count), at


def _central(source: Source, extent: _Extent) -> Iterator[Listed]:
    start, count = extent.start, extent.count
    directory = read_exactly(source, start, extent.nbytes)
    at = 0
    for number in range(1, count + 1):
        if directory[at : at + 4] != _CENTRAL_SIGNATURE or at + _CENTRAL.size > len(directory):
            where = f"should start at byte {start + at:,} and does not"
            raise Damage("directory", f"entry {number:,} of {count:,} in the zip directory {where}", start + at)
        fields = _CENTRAL.unpack_from(directory, at)
        _, _, _, flags, method, _, _, crc, packed, nbytes, name_n, extra_n, comment_n, disk, _, attributes, header = (
            fields
        )
        at += _CENTRAL.size
        name = directory[at : at + name_n]
        if disk > 1:
            raise Damage("directory", f"entry {number:,} of the zip directory lies on disk {disk:,}", start + at)
        if SEE_ZIP64 in (nbytes, packed, header):
            extra = directory[at + name_n : at + name_n + extra_n]
            nbytes, packed, header = _zip64(extra, (nbytes, packed, header), start + at)
        at += name_n + extra_n + comment_n
        if at > len(directory):
            message = f"entry {number:,} of the zip directory passes the directory's end"
            raise Damage("directory", message, start + len(directory))
        yield name, flags, method, crc, packed, nbytes, attributes, header


def _zip64(extra: bytes, narrow: tuple[int, int, int], offset: int) -> tuple[int, int, int]:
    """Size, packed size and header offset, with 64 bits from the extra field 1 for those that are all ones, in order."""
    at = 0
    while at + _LENGTHS.size <= len(extra):
        tag, nbytes = _LENGTHS.unpack_from(extra, at)
        at += _LENGTHS.size
        if at + nbytes > len(extra):
            break
        if tag == _ZIP64_FIELD:
            wide = list(struct.unpack_from(f"<{nbytes // 8}Q", extra, at))
            if len(wide) >= narrow.count(SEE_ZIP64):
                size, packed, header = (wide.pop(0) if n == SEE_ZIP64 else n for n in narrow)
                return size, packed, header
            break
        at += nbytes
    raise Damage("directory", "a zip entry announces 64-bit sizes and does not hold them", offset)


def _with_data(source: Source, listed: Listed, log: ProblemLog) -> ZipEntry:
    """The entry with the offset of its content, which only its local header tells."""
    raw_name, flags, method, crc, packed, nbytes, attributes, at = listed
    name = raw_name.decode("utf-8", "replace")
    if flags & ENCRYPTED_OR_PATCHED or attributes & _DOS_DIRECTORY or method or packed != nbytes or "\ufffd" in name:
        _check_listed(listed, name, log)
    header = source.read(at, LOCAL.size + len(raw_name)) if at < source.size else b""
    data = None
    if len(header) < LOCAL.size or not header.startswith(LOCAL_SIGNATURE):
        log.add("entry-header", f"the entry's own header should lie at byte {at:,} and does not", at, name)
    else:
        name_n, extra_n = _LENGTHS.unpack_from(header, _LENGTHS_AT)
        data = at + LOCAL.size + name_n + extra_n
        note_contradiction(name, at, listed, LOCAL.unpack_from(header), header[LOCAL.size :], log)
        if data + packed > source.size:
            end = f"pass the end of the file, {source.size:,} bytes long"
            log.add("entry-header", f"its {packed:,} bytes from byte {data:,} {end}", at, name)
            data = None
    return _new_entry((name, method, crc, packed, nbytes, at, data))


def _check_listed(listed: Listed, name: str, log: ProblemLog) -> None:
    """Note what torch does not take in an entry, whatever its local header says."""
    raw_name, flags, method, _, packed, nbytes, attributes, header = listed
    if flags & ENCRYPTED_OR_PATCHED:
        wrong = "the entry is encrypted or patched, which torch does not read"
    elif attributes & _DOS_DIRECTORY and nbytes:
        wrong = f"the entry is marked as a directory and has {nbytes:,} bytes"
    elif method not in (STORED, DEFLATED):
        wrong = f"the entry is compressed with method {method}, which torch does not read"
    elif method == STORED and packed != nbytes:
        wrong = f"the entry is stored as it is, in {packed:,} bytes that should be {nbytes:,}"
    elif nbytes and not packed:
        wrong = f"the entry has {nbytes:,} bytes, compressed to none"
    elif raw_name != name.encode():
        wrong = "the entry's name is not UTF-8"
    else:
        return
    log.add("entry-header", wrong, header, name)


def _check_overlaps(entries: list[ZipEntry], directory: int, log: ProblemLog) -> None:
    """Note entries that share bytes with the next entry or with the directory: two readers would see two files."""
    spans = sorted((e.header, e.data + e.packed, e.name) for e in entries if e.data is not None)
    spans.append((directory, directory, "the zip directory"))
    for (begin, end, name), (start, _, next_name) in pairwise(spans):
        if end > start:
            message = f"the entry ends at byte {end:,}, inside '{next_name}', which starts at {start:,}"
            log.add("entry-header", message, begin, name)

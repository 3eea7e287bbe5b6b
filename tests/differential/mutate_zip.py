"""Mutations of a zip archive record by record: a model of the archive is changed and written again, offsets and all."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from functools import cache
from random import Random

from tests.differential.mutate_bytes import mutate_bytes, odd_number
from tests.differential.mutate_pickle import mutate_pickle

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_LOCAL_FIELDS = (
    "signature",
    "version",
    "flags",
    "method",
    "time",
    "date",
    "crc",
    "packed",
    "nbytes",
    "name_n",
    "extra_n",
)
_CENTRAL_FIELDS = (
    "signature", "made_by", "version", "flags", "method", "time", "date", "crc", "packed", "nbytes", "name_n", "extra_n", "comment_n",
    "disk", "internal", "attributes", "header",
)  # fmt: skip
_END64_FIELDS = ("signature", "rest", "made_by", "version", "disk", "first", "here", "count", "nbytes", "start")
_LOCATOR_FIELDS = ("signature", "disk", "at", "disks")
_END_FIELDS = ("signature", "disk", "first", "here", "count", "nbytes", "start", "comment_n")
_CHECKSUM_AND_SIZES = 16
Fields = dict[str, int]


@dataclass(slots=True)
class Entry:
    """One entry: `local` and `central` hold what is to be written otherwise than it should be."""

    name: bytes
    content: bytes
    method: int = 0
    local_name: bytes | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    behind: bytes = b""
    local: Fields = field(default_factory=dict)
    central: Fields = field(default_factory=dict)
    streamed: bool = False


@dataclass(slots=True)
class Archive:
    """The whole: entries, and what is to be written otherwise in its end records."""

    entries: list[Entry]
    prefix: bytes = b""
    suffix: bytes = b""
    comment: bytes = b""
    zip64: bool = True
    end64: Fields = field(default_factory=dict)
    locator: Fields = field(default_factory=dict)
    end: Fields = field(default_factory=dict)

    def pack(self) -> bytes:
        """The bytes of the archive."""
        out = bytearray(self.prefix)
        central = b"".join([_pack_entry(entry, out) for entry in self.entries])
        start, count = len(out), len(self.entries)
        out += central
        if self.zip64:
            at = len(out)
            values = (b"PK\x06\x06", _END64.size - 12, 45, 45, 0, 0, count, count, len(central), start)
            out += _pack(_END64, _END64_FIELDS, values, self.end64)
            out += _pack(_LOCATOR, _LOCATOR_FIELDS, (b"PK\x06\x07", 0, at, 1), self.locator)
        values = (b"PK\x05\x06", 0, 0, count, count, len(central), start, len(self.comment))
        return bytes(out + _pack(_END, _END_FIELDS, values, self.end) + self.comment + self.suffix)


def _pack(layout: struct.Struct, names: tuple[str, ...], values: tuple[object, ...], changed: Fields) -> bytes:
    raw = bytearray(layout.pack(*values))
    at = 0
    for name, code in zip(names, _codes(layout), strict=True):
        width = struct.calcsize("<" + code)
        if name in changed:
            raw[at : at + width] = (changed[name] % (1 << 8 * width)).to_bytes(width, "little")
        at += width
    return bytes(raw)


@cache
def _codes(layout: struct.Struct) -> tuple[str, ...]:
    codes, count = [], ""
    for char in layout.format[1:]:
        if char.isdigit():
            count += char
        else:
            codes += ["4s"] if char == "s" else [char] * int(count or 1)
            count = ""
    return tuple(codes)


def _pack_entry(entry: Entry, out: bytearray) -> bytes:
    """Write an entry behind `out`; its record for the directory."""
    header, packed = len(out), entry.content
    if entry.method == 8:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = deflate.compress(entry.content) + deflate.flush()
    crc, flags = zlib.crc32(entry.content), 8 if entry.streamed else 0
    name = entry.name if entry.local_name is None else entry.local_name
    sizes = (0, 0, 0) if entry.streamed else (crc, len(packed), len(entry.content))
    values = (b"PK\x03\x04", 20, flags, entry.method, 0, 0, *sizes, len(name), len(entry.local_extra))
    out += _pack(_LOCAL, _LOCAL_FIELDS, values, entry.local) + name + entry.local_extra + packed
    if entry.streamed:
        out += struct.pack("<4s3L", b"PK\x07\x08", crc, len(packed), len(entry.content))
    out += entry.behind
    values = (
        b"PK\x01\x02", 20, 20, flags, entry.method, 0, 0, crc, len(packed), len(entry.content), len(entry.name), len(entry.extra),
        len(entry.comment), 0, 0, 0, header,
    )  # fmt: skip
    return _pack(_CENTRAL, _CENTRAL_FIELDS, values, entry.central) + entry.name + entry.extra + entry.comment


@cache
def contents(data: bytes) -> tuple[tuple[bytes, bytes, bytes], ...]:
    """Name, content and local extra field of every entry that torch.save wrote."""
    *_, count, _, at, _ = _END.unpack_from(data, data.rindex(b"PK\x05\x06"))
    found = []
    for _ in range(count):
        fields = dict(zip(_CENTRAL_FIELDS, _CENTRAL.unpack_from(data, at), strict=True))
        local = dict(zip(_LOCAL_FIELDS, _LOCAL.unpack_from(data, fields["header"]), strict=True))
        start = fields["header"] + _LOCAL.size + local["name_n"]
        body = start + local["extra_n"]
        name = data[at + _CENTRAL.size :][: fields["name_n"]]
        found.append((name, data[body : body + fields["nbytes"]], data[start:body]))
        at += _CENTRAL.size + fields["name_n"] + fields["extra_n"] + fields["comment_n"]
    return tuple(found)


def mutate_zip(rng: Random, data: bytes, other: bytes) -> bytes:
    """A sound archive by torch.save with a few records changed."""
    archive = Archive(
        [Entry(name, body, local_extra=extra) for name, body, extra in contents(data)], zip64=rng.random() < 0.5
    )
    streamed = rng.random() < 0.3
    for entry in archive.entries:
        entry.streamed = streamed
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_CHANGES)(rng, archive, other)
    return archive.pack()


def mutate_data_pkl(rng: Random, data: bytes, other: bytes) -> bytes:
    """A sound archive by torch.save with opcodes of its pickle changed."""
    archive = Archive([Entry(name, body) for name, body, _ in contents(data)])
    lent = next(body for name, body, _ in contents(other) if name.endswith(b"/data.pkl"))
    for entry in archive.entries:
        if entry.name.endswith(b"/data.pkl"):
            entry.content = mutate_pickle(rng, entry.content, lent)
    return archive.pack()


def _central_field(rng: Random, archive: Archive, other: bytes) -> None:
    entry = rng.choice(archive.entries)
    if rng.random() < 0.25:
        entry.central["header"] = rng.choice((0, 1, 30, 64, 2**32 - 1, rng.randrange(4000)))
        return
    name = rng.choice(_CENTRAL_FIELDS[1:])
    likely = {"method": 0, "flags": 0, "disk": 0, "nbytes": len(entry.content), "packed": len(entry.content)}
    entry.central[name] = odd_number(rng, likely.get(name, len(entry.name)))


def _local_field(rng: Random, archive: Archive, other: bytes) -> None:
    entry = rng.choice(archive.entries)
    name = rng.choice(_LOCAL_FIELDS)
    entry.local[name] = odd_number(
        rng, {"name_n": len(entry.name), "extra_n": len(entry.local_extra)}.get(name, len(entry.content))
    )


def _end_field(rng: Random, archive: Archive, other: bytes) -> None:
    count = len(archive.entries)
    target, names = rng.choice(
        ((archive.end, _END_FIELDS), (archive.end64, _END64_FIELDS), (archive.locator, _LOCATOR_FIELDS))
    )
    for name in rng.sample(names[1:], rng.choice((1, 1, 2, 3))):
        near = {"disks": 1, "disk": 0, "first": 0, "rest": 44, "comment_n": 0}.get(name, count)
        target[name] = rng.choice((odd_number(rng, near), 0xFFFF, 0xFFFFFFFF, 0, 1, 2))


def _rename(rng: Random, archive: Archive, other: bytes) -> None:
    entry = rng.choice(archive.entries)
    name = entry.name
    folder, _, rest = name.partition(b"/")
    names = (
        name.upper(), name.title(), rest, folder + b"//" + rest, b"x/" + rest, name + b"/", name.replace(b"/", b"\\"), b"", b"/" + name,
        name + b"\0", name[:-1], b"../" + name, name + b" ", b"\xff" + name, folder + b"/constants.pkl", folder + b"/version",
        folder + b"/.data/version", folder.upper() + b"/" + rest, folder + b"/DATA.PKL", rng.choice(archive.entries).name,
    )  # fmt: skip
    new = rng.choice(names)
    if rng.random() < 0.8:
        entry.name = new
    entry.local_name = rng.choice((None, new, name))


def _drop(rng: Random, archive: Archive, other: bytes) -> None:
    if len(archive.entries) > 1:
        del archive.entries[rng.randrange(len(archive.entries))]


def _repeat(rng: Random, archive: Archive, other: bytes) -> None:
    entry = rng.choice(archive.entries)
    copy = Entry(entry.name, rng.choice((entry.content, entry.content[:-1], b"")), local_extra=entry.local_extra)
    archive.entries.insert(rng.randrange(len(archive.entries) + 1), copy)


def _shuffle(rng: Random, archive: Archive, other: bytes) -> None:
    rng.shuffle(archive.entries)


def _content(rng: Random, archive: Archive, other: bytes) -> None:
    entry = rng.choice(archive.entries)
    if rng.random() < 0.5:
        entry.content = mutate_bytes(rng, entry.content, other)
    else:
        entry.content = rng.choice((b"", b"3", b"3\n", b" 3 ", b"0", b"11", b"-1", b"+5", b"03", b"1e1", b"1_0", b"\xff", b"little", b"big",
                                    b"Little", b"little\n", b"64", b"9" * 30, bytes(5000), "٣".encode(), b"\x00", b"1", b"a"))  # fmt: skip


def _add(rng: Random, archive: Archive, other: bytes) -> None:
    folder = archive.entries[0].name.partition(b"/")[0]
    name = rng.choice((b"extra.pkl", b"data/99", b".format_version", b"constants.pkl", b"code/x.py", b"data", b".data/version", b"byteorder",
                       b".storage_alignment", b".data/serialization_id", b"version"))  # fmt: skip
    entry = Entry(folder + b"/" + name, rng.choice((b"", b"1", b"3", b"x", b"\x80\x02N.", b"64", b"\xff")))
    archive.entries.insert(rng.choice((0, len(archive.entries))), entry)


def _extra(rng: Random, archive: Archive, other: bytes) -> None:
    """Sizes and offsets moved into the extra field of zip64, right or wrong."""
    entry = rng.choice(archive.entries)
    wide = struct.pack("<3Q", len(entry.content), len(entry.content), rng.choice((0, 64, 2**63)))
    cut = rng.choice((0, 8, 16, 24, 20))
    entry.extra = (
        rng.choice((b"", b"FB\x02\0aa"))
        + struct.pack("<2H", rng.choice((1, 1, 2)), rng.choice((cut, cut, 99)))
        + wide[:cut]
    )
    for name in rng.sample(("nbytes", "packed", "header"), rng.randrange(4)):
        entry.central[name] = 0xFFFFFFFF


def _deflate(rng: Random, archive: Archive, other: bytes) -> None:
    for entry in rng.choice((archive.entries, [rng.choice(archive.entries)])):
        entry.method = 8


def _around(rng: Random, archive: Archive, other: bytes) -> None:
    piece = rng.choice(
        (
            b"\0",
            b"PK",
            b"PK\x05\x06",
            b"PK\x05\x06" + bytes(18),
            b"#!/bin/sh\n",
            bytes(64),
            other,
            b"PK\x03\x04" + bytes(30),
        )
    )
    kind = rng.randrange(5)
    if kind == 0:
        archive.prefix = piece
    elif kind == 1:
        archive.suffix = piece
    elif kind == 2:
        archive.comment = piece
    elif kind == 3:
        rng.choice(archive.entries).behind = piece
    else:
        rng.choice(archive.entries).comment = piece


_CHANGES = (
    _central_field, _central_field, _local_field, _end_field, _end_field, _rename, _rename, _drop, _repeat, _shuffle, _content,
    _content, _add, _extra, _deflate, _around,
)  # fmt: skip

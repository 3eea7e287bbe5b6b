"""Containers around a pickle: torch's three formats, made whole and made to mean two things."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable

from tests.hostile.programs import HARMLESS, PROGRAM

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
_MAGIC = 0x1950A86A20F9469CFC6C
_NONE, _EMPTY = pickle.dumps(0, 2), pickle.dumps([], 2)


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these entries in their order, a name twice if it is given twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in entries:
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def torch_file(program: bytes, *more: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    return zipped(("data.pkl", program), ("version", b"3\n"), ("byteorder", b"little"), *more, method=method)


def in_torch_file(program: bytes) -> Callable[[], bytes]:
    return lambda: torch_file(program)


def legacy(position: int) -> Callable[[], bytes]:
    """A file from before torch 1.6, in which one of the five pickles is the payload."""

    def make() -> bytes:
        values: tuple[object, ...] = (_MAGIC, 1001, {"little_endian": True}, {}, [])
        streams = [pickle.dumps(value, 2) for value in values]
        streams[position] = PROGRAM
        return b"".join(streams)

    return make


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("storages", _NONE + _EMPTY), ("tensors", _NONE), ("pickle", PROGRAM)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _changed(mark: bytes, offset: int, layout: str, value: int) -> bytes:
    """The payload in a torch file, with one field changed in its first entry's header or in the directory."""
    data = bytearray(torch_file(PROGRAM))
    struct.pack_into(layout, data, data.index(mark) + offset, value)
    return bytes(data)


def flagged() -> bytes:
    return _changed(LOCAL, 6, "<H", 1)


def bad_checksum() -> bytes:
    return _changed(CENTRAL, 16, "<L", 1)


def renamed() -> bytes:
    return torch_file(PROGRAM).replace(b"archive/data.pkl", b"archive/data.txt", 1)


def doubled() -> bytes:
    return zipped(("data.pkl", PROGRAM), ("data.pkl", HARMLESS), ("version", b"3\n"))


def doubled_in_capitals() -> bytes:
    return zipped(("DATA.PKL", PROGRAM), ("data.pkl", HARMLESS), ("version", b"3\n"))


def capitals() -> bytes:
    return zipped(("DATA.PKL", PROGRAM), ("VERSION", b"3\n"))


def second_end() -> bytes:
    """Behind the archive lies an end record that is none."""
    return torch_file(PROGRAM) + END + bytes(10)


def trailing() -> bytes:
    return torch_file(PROGRAM) + bytes(4000)


def _record(name: bytes, content: bytes) -> bytes:
    header = (20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), 0)
    return LOCAL + struct.pack("<5H3L2H", *header) + name + content


def _listed(name: bytes, content: bytes, offset: int) -> bytes:
    header = (20, 20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), 0, 0, 0, 0, 0, offset)
    return CENTRAL + struct.pack("<6H3L5H2L", *header) + name


def _archive(records: bytes, listed: list[tuple[bytes, bytes, int]]) -> bytes:
    directory = b"".join(_listed(*entry) for entry in listed)
    count = len(listed)
    return records + directory + END + struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(records), 0)


def inside_a_storage() -> bytes:
    """The directory's data.pkl lies within the bytes of a storage; the one that comes first in the file is harmless."""
    pickled, storage = b"archive/data.pkl", b"archive/data/0"
    before = _record(pickled, HARMLESS)
    hidden = _record(pickled, PROGRAM)
    version = _record(b"archive/version", b"3\n")
    inner = len(before) + len(LOCAL) + 26 + len(storage)
    listed = [
        (pickled, PROGRAM, inner),
        (storage, hidden, len(before)),
        (b"archive/version", b"3\n", len(before) + len(_record(storage, hidden))),
    ]
    return _archive(before + _record(storage, hidden) + version, listed)


def unlisted() -> bytes:
    """A harmless data.pkl comes first in the file, and the directory does not list it."""
    pickled = b"archive/data.pkl"
    before = _record(pickled, HARMLESS)
    payload = _record(pickled, PROGRAM)
    listed = [(pickled, PROGRAM, len(before)), (b"archive/version", b"3\n", len(before) + len(payload))]
    return _archive(before + payload + _record(b"archive/version", b"3\n"), listed)


def seven_zip() -> bytes:
    """A 7z archive with one entry, stored as it is."""
    name = "data.pkl\0".encode("utf-16-le")
    packed = b"\x06\x00\x01\x09" + bytes([len(PROGRAM)]) + b"\x00"
    folder = b"\x07\x0b\x01\x00\x01\x01\x00\x0c" + bytes([len(PROGRAM)]) + b"\x00"
    files = b"\x05\x01\x11" + bytes([len(name) + 1]) + b"\x00" + name + b"\x00"
    header = b"\x01\x04" + packed + folder + b"\x08\x00\x00" + files + b"\x00"
    start = struct.pack("<QQL", len(PROGRAM), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<L", zlib.crc32(start)) + start + PROGRAM + header

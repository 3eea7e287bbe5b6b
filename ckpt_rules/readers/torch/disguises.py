"""Pickles in files that are not torch's: what a tar archive, a NumPy array or a compressed file would have a loader run."""

from __future__ import annotations

import ast
import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, Protocol

from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import Damage
from ckpt_rules.readers.pickle.enclosed import Enclosed, Memory, Window, is_lzma, is_zlib
from ckpt_rules.readers.pickle.machine import Unpickled, unpickle
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder
from ckpt_rules.readers.pickle.unmarked import looks_loadable
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.storage import Source

_BLOCK, _HEAD_NBYTES = 512, 1024
_NAME, _SIZE, _KIND = slice(0, 100), slice(124, 136), slice(156, 157)
_LONG_NAME, _FILES = b"L", (b"0", b"\0", b"7", b" ")
_RUN_BY_TORCH = frozenset({"storages", "tensors", "pickle"})
_NPY_HEAD = struct.Struct("<6s2BH")
_NPY_VERSION_2 = struct.Struct("<6s2BL")
_MOST_NPY_HEADER = 64 << 10
_FIRST_PACKED, _FIRST_UNPACKED = 64 << 10, 1024


class _Engine(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Packing(NamedTuple):
    """A way to compress a file.

    name:   what it is called
    begins: whether bytes are the start of such a file
    """

    name: str
    begins: Callable[[bytes], bool]
    engine: Callable[[], _Engine]


PACKINGS = (
    Packing("gzip", lambda head: head.startswith(b"\x1f\x8b"), lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    Packing("zlib", is_zlib, zlib.decompressobj),
    Packing("bzip2", lambda head: head.startswith(b"BZh"), bz2.BZ2Decompressor),
    Packing("xz", lambda head: head.startswith(b"\xfd7zXZ\0"), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    Packing("lzma", is_lzma, lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
)


_FOREIGN_PACKINGS = (
    ("zstd", (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60)))),
    ("lz4", (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18")),
    ("lzo", (b"\x89LZO\0\r\n\x1a\n",)),
    ("snappy", (b"\xff\x06\0\0sNaPpY",)),
    ("compress", (b"\x1f\x9d",)),
)


def foreign_packing(head: bytes) -> str | None:
    """How a file that begins so is compressed, where nothing of Python's own undoes it."""
    return next((name for name, marks in _FOREIGN_PACKINGS if head.startswith(marks)), None)


def packing_of(head: bytes) -> Packing | None:
    """How a file that begins so is compressed; None where it is not, or in a way that can't be undone here."""
    found = next((each for each in PACKINGS if each.begins(head)), None)
    if found is None:
        return None
    try:
        found.engine().decompress(head, _FIRST_UNPACKED)
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        return None
    return found


def unpacked(source: Source, packing: Packing, budget: Budget) -> bytes:
    """The content of a compressed file, as far as it goes, or only its start where nothing could be run of it.

    LimitError where it is too much.
    """
    start = _decompressed(source.read(0, _FIRST_PACKED), packing, _FIRST_UNPACKED)
    if not looks_loadable(start, 2 * _FIRST_UNPACKED):
        return start
    most = min(budget.limits.structure * MIB, budget.room // 4)
    content = _decompressed(source.read(0, most), packing, most + 1)
    if len(content) > most:
        message = f"the file unpacks to more than the {most:,} bytes that are read"
        raise LimitError.past("structure", message)
    return content


def _decompressed(raw: bytes, packing: Packing, most: int) -> bytes:
    try:
        return packing.engine().decompress(raw, most)
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise Damage("not-torch", f"the file can't be unpacked: {error}", 0) from None


def tar_pickles(source: Source, budget: Budget) -> tuple[list[Unpickled], list[Enclosed]]:
    """The pickles of a tar archive, and its members that are loadable themselves.

    Before version 2.6, torch.load ran the members storages, tensors and pickle, and several pickles in each.
    """
    found, enclosed = list[Unpickled](), list[Enclosed]()
    for name, at, nbytes in _members(source, budget):
        if name in _RUN_BY_TORCH or name.endswith((".pkl", ".pickle")):
            found += pickles_at(source, at, name, budget)
        elif looks_loadable(source.read(at, min(nbytes, _HEAD_NBYTES)), nbytes):
            enclosed.append(Enclosed(name, at, Window(source, at, nbytes), usual=True))
    return found, enclosed


def _members(source: Source, budget: Budget) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and bytes of each member that is a file."""
    at, long_name = 0, ""
    for _ in range(budget.limits.entries):
        header = source.read(at, _BLOCK)
        nbytes = _size(header[_SIZE])
        if len(header) < _BLOCK or not header.strip(b"\0") or nbytes is None:
            return
        kind, begin = header[_KIND], at + _BLOCK
        if kind in _FILES:
            name = header[_NAME].split(b"\0", 1)[0].decode("utf-8", "replace")
            yield long_name or name, begin, nbytes
        long_name = ""
        if kind == _LONG_NAME:
            long_name = source.read(begin, min(nbytes, _BLOCK)).split(b"\0", 1)[0].decode("utf-8", "replace")
        at = begin + -(-nbytes // _BLOCK) * _BLOCK


def _size(raw: bytes) -> int | None:
    """The number in a header of tar: octal digits, or where the first bit is set, the bytes themselves."""
    if raw[:1] == b"\x80":
        return int.from_bytes(raw[1:], "big")
    digits = raw.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def numpy_pickle(source: Source, budget: Budget) -> list[Unpickled]:
    """The pickle that a NumPy array of objects is; none where the array holds numbers."""
    start = objects_at(source)
    return [] if start is None else pickles_at(source, start, "object array", budget)


def objects_at(source: Source) -> int | None:
    """Where the pickle of a NumPy array begins; None where the array holds numbers."""
    head = source.read(0, _NPY_VERSION_2.size)
    if len(head) < _NPY_VERSION_2.size:
        return None
    layout = _NPY_HEAD if head[6] == 1 else _NPY_VERSION_2
    nbytes = layout.unpack_from(head)[3]
    described = source.read(layout.size, min(nbytes, _MOST_NPY_HEADER)).decode("latin-1")
    return layout.size + nbytes if _may_hold_objects(described) else None


def may_hold_objects(head: bytes) -> bool:
    """Whether a NumPy array that begins so holds objects; True where that can't be told."""
    return objects_at(Memory(head)) is not None


def _may_hold_objects(described: str) -> bool:
    """Whether the dtype in the header of an array holds objects, however it is written; True where that can't be told."""
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        header = ast.literal_eval(described.strip())
        if isinstance(header, dict) and "descr" in header:
            return any("O" in text or "ob" in text for text in _types(header["descr"]))
    return True


def _types(descr: object) -> Iterator[str]:
    """The texts in a dtype's description that name types: not those that name fields."""
    if isinstance(descr, list):
        for field in descr:
            parts = field[1:] if isinstance(field, tuple) else (field,)
            yield from _types(parts[0] if parts else "O")
    elif isinstance(descr, tuple):
        yield from _types(descr[0] if descr else "O")
    else:
        yield descr if isinstance(descr, str) else "O"


def pickles_at(source: Source, start: int, stream: str, budget: Budget) -> list[Unpickled]:
    """The pickles that follow one another from some byte of a file on."""
    room = budget.room
    found = unpickle_window(source, start, budget, lambda raw: all_pickles(raw, budget, stream))[1]
    budget.room = room
    # What comes behind the first is mostly something else: the next member, or the bytes of a storage.
    return [each for i, each in enumerate(found) if i == 0 or each.readable or each.globals]


def all_pickles(raw: bytes, budget: Budget, stream: str = "object") -> list[Unpickled]:
    """The pickles that follow one another, the last of which may have broken off; a value is kept of the first only."""
    pickles = [unpickle(raw, PlainBuilder(budget.limits), stream=stream, budget=budget)]
    while pickles[-1].readable and pickles[-1].end < len(raw):
        if len(pickles) > budget.limits.enclosed:
            limit = LimitError.past("enclosed", f"more than {budget.limits.enclosed:,} pickles follow one another")
            past = ReadProblem(limit.code, limit.reason, pickles[-1].end)
            pickles[0] = replace(pickles[0], problems=(*pickles[0].problems, past))
            break
        name = f"{stream} {len(pickles) + 1}"
        further = unpickle(raw, PlainBuilder(budget.limits), stream=name, budget=budget, start=pickles[-1].end)
        pickles.append(replace(further, value=None))
    return pickles

"""The tables in the bodies of OCDBT's frames: data files, versions, entries of B+tree nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import LimitError
from ckpt_rules.readers.ocdbt.frame import Cursor

MOST_PATH = 65_535
_MOST_TEXT = 32 * MIB
_MISSING = (1 << 64) - 1
_UUID_NBYTES, _LEVEL_NBYTES = 16, 4


class File(NamedTuple):
    """A data file: what its own references are relative to, and its path; both relative to the manifest's directory."""

    base: bytes
    path: bytes


class Child(NamedTuple):
    """A node further down: the key that its own keys continue, and where it lies."""

    prefix: bytes
    file: File
    offset: int
    nbytes: int
    height: int


class Leaf(NamedTuple):
    """A key and its value, inline or in a file."""

    key: bytes
    nbytes: int
    file: File | None
    offset: int
    inline: bytes | None


def root_of(cursor: Cursor) -> Child | None:
    """The root of the newest version in the body of a manifest; None where it has none."""
    cursor.take(_UUID_NBYTES)
    if cursor.varint():  # the versions are in files of their own
        return None
    cursor.varints(2)
    cursor.byte()
    if cursor.varint():
        cursor.take(_LEVEL_NBYTES)
    files = _files(cursor, b"")
    count = cursor.varint()
    cursor.varints(count)
    heights = cursor.take(count)
    places = _places(cursor, files, count)
    if not places:
        raise cursor.damage("the manifest holds no version")
    file, offset, nbytes = places[-1]
    return None if offset == nbytes == _MISSING else Child(b"", file, offset, nbytes, heights[-1])


def entries_of(cursor: Cursor, node: Child) -> Sequence[Child | Leaf]:
    """What the body of a node holds."""
    height = cursor.byte()
    if height != node.height:
        raise cursor.damage(f"the node has height {height}, where {node.height} was expected")
    files = _files(cursor, node.file.base)
    count = cursor.varint()
    if not count:
        raise cursor.damage("the node is empty")
    return _children(cursor, files, count, node) if height else _leaves(cursor, files, count, node)


def _files(cursor: Cursor, above: bytes) -> list[File]:
    count = cursor.varint()
    shared = [0, *cursor.varints(count - 1)] if count else []
    lengths, bases = cursor.varints(count), cursor.varints(count)
    _check_total(cursor, count, above, sum(shared) + sum(lengths))
    files, last = [], b""
    for same, length, base in zip(shared, lengths, bases, strict=True):
        if same > len(last) or same + length > MOST_PATH or base > same + length:
            raise cursor.damage("the lengths in a table of files are not valid")
        last = last[:same] + cursor.take(length)
        files.append(File(above + last[:base], above + last))
    return files


def _check_total(cursor: Cursor, count: int, before: bytes, nbytes: int) -> None:
    """Keys and paths that share much unfold into far more than the body holds."""
    total = nbytes + count * len(before)
    if len(before) > MOST_PATH or total > _MOST_TEXT:
        raise LimitError(
            f"names of {total:,} bytes in one table are more than the {_MOST_TEXT:,} that are read", cursor.start
        )


def _keys(cursor: Cursor, count: int, before: bytes, *, prefixes: bool) -> tuple[list[bytes], list[int]]:
    """The keys of a node's entries, and for children how much of each is common to all below it."""
    shared = [0, *cursor.varints(count - 1)]
    lengths = cursor.varints(count)
    common = cursor.varints(count) if prefixes else []
    _check_total(cursor, count, before, sum(shared) + sum(lengths))
    keys: list[bytes] = []
    last = b""
    for same, length in zip(shared, lengths, strict=True):
        if same > len(last) or same + length > MOST_PATH:
            raise cursor.damage("the lengths of keys are not valid")
        key = last[:same] + cursor.take(length)
        if keys and key <= last:
            raise cursor.damage("keys are out of order")
        keys.append(last := key)
    return keys, common


def _places(cursor: Cursor, files: list[File], count: int) -> list[tuple[File, int, int]]:
    """References to nodes, and past what is counted of them."""
    numbers = cursor.varints(count)
    offsets, lengths = cursor.varints(count), cursor.varints(count)
    cursor.varints(count), cursor.varints(count), cursor.varints(count)
    return [(_file(cursor, files, n), o, size) for n, o, size in zip(numbers, offsets, lengths, strict=True)]


def _file(cursor: Cursor, files: list[File], number: int) -> File:
    if number >= len(files):
        raise cursor.damage(f"file {number:,} is named, where the table has {len(files):,}")
    return files[number]


def _children(cursor: Cursor, files: list[File], count: int, node: Child) -> list[Child]:
    keys, common = _keys(cursor, count, node.prefix, prefixes=True)
    places = _places(cursor, files, count)
    return [
        Child(node.prefix + key[:length], *place, node.height - 1)
        for key, length, place in zip(keys, common, places, strict=True)
    ]


def _leaves(cursor: Cursor, files: list[File], count: int, node: Child) -> list[Leaf]:
    keys, _ = _keys(cursor, count, node.prefix, prefixes=False)
    lengths = cursor.varints(count)
    kinds = cursor.take(count)
    if max(kinds) > 1:
        raise cursor.damage(f"a value is of kind {max(kinds)}")
    away = sum(kinds)
    numbers, offsets = iter(cursor.varints(away)), iter(cursor.varints(away))
    leaves = []
    for key, length, kind in zip(keys, lengths, kinds, strict=True):
        if kind:
            file = _file(cursor, files, next(numbers))
            leaves.append(Leaf(node.prefix + key, length, file, next(offsets), None))
        else:
            leaves.append(Leaf(node.prefix + key, length, None, 0, cursor.take(length)))
    return leaves

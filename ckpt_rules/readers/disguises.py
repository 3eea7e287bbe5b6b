"""Pickles in files that are not torch's: what a tar archive, a NumPy array or a gzip file would have a loader run."""

from __future__ import annotations

import struct
import zlib

from ckpt_rules.limits import MIB
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage
from ckpt_rules.readers.pickle_machine import Unpickled, unpickle
from ckpt_rules.readers.plain_objects import PlainBuilder
from ckpt_rules.readers.windows import unpickle_window
from ckpt_rules.storage import Source

_BLOCK = 512
_NAME, _SIZE = slice(0, 100), slice(124, 136)
_NPY_HEAD = struct.Struct("<6s2BH")
_NPY_VERSION_2 = struct.Struct("<6s2BL")
_MOST_NPY_HEADER = 64 << 10


def tar_pickles(source: Source, budget: Budget) -> list[Unpickled]:
    """The pickles of a tar archive: before version 2.6, torch.load ran those of its members storages, tensors and pickle."""
    found = []
    at = 0
    for _ in range(budget.limits.entries):
        header = source.read(at, _BLOCK)
        name = header[_NAME].split(b"\0", 1)[0].decode("utf-8", "replace")
        digits = header[_SIZE].strip(b" \0")
        if len(header) < _BLOCK or not name or not digits.isdigit():
            break
        if name in ("storages", "tensors", "pickle") or name.endswith((".pkl", ".pickle")):
            found += _pickle_at(source, at + _BLOCK, name, budget)
        at += _BLOCK + -(-int(digits, 8) // _BLOCK) * _BLOCK if digits.strip(b"01234567") == b"" else source.size
    return found


def numpy_pickle(source: Source, budget: Budget) -> list[Unpickled]:
    """The pickle that a NumPy array of objects is; none where the array holds numbers."""
    head = source.read(0, _NPY_VERSION_2.size)
    if len(head) < _NPY_VERSION_2.size:
        return []
    layout = _NPY_HEAD if head[6] == 1 else _NPY_VERSION_2
    nbytes = layout.unpack_from(head)[3]
    described = source.read(layout.size, min(nbytes, _MOST_NPY_HEADER))
    return _pickle_at(source, layout.size + nbytes, "object array", budget) if b"O" in described else []


def unpacked(source: Source, budget: Budget) -> bytes:
    """The content of a gzip file, as far as it goes; LimitError where it is too much."""
    most = min(budget.limits.structure * MIB, budget.room // 4)
    raw = source.read(0, most)
    engine = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = engine.decompress(raw, most)
    except zlib.error as error:
        raise Damage("not-torch", f"the file can't be unpacked: {error}", 0) from None
    if engine.unconsumed_tail:
        budget.check_size(budget.limits.structure * MIB + 1, "the unpacked file")
    return content


def _pickle_at(source: Source, start: int, stream: str, budget: Budget) -> list[Unpickled]:
    room = budget.room
    _, found = unpickle_window(
        source, start, budget, lambda raw: [unpickle(raw, PlainBuilder(budget.limits), stream=stream, budget=budget)]
    )
    budget.room = room
    return found

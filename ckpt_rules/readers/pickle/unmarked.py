"""Whether a file that begins with no mark of a pickle, or with that of another format, is one all the same.

Protocols 0 and 1 have no mark, and an unpickler asks for none: `GGUF` begins a pickle with a number, and so do the eight
bytes of many a safetensors file. Text may look so by chance, which is why something must be called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ckpt_rules.facts.tensors import GlobalRef
from ckpt_rules.limits import DEFAULT_LIMITS
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.pickle.enclosed import is_loadable
from ckpt_rules.readers.pickle.machine import unpickle
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder

_BLOCK, _CHECKSUM, _CHECKSUM_AT = 512, slice(148, 156), 148
_FIRST = frozenset(b"(]})cFGIJKLMNSTUVX\x80\x88\x89\x8a\x8b\x8c\x8d\x8e\x8fBC\x95\x96")
"""Opcodes that a pickle can begin with: those that need nothing on the stack."""
_NAME = re.compile(r"[^\W\d][\w.]*")
_OPCODES = 100_000


def is_tar(head: bytes) -> bool:
    """Whether a tar archive begins here: by its mark, or as older ones have none, by the checksum of the first header."""
    if head[257:262] == b"ustar":
        return True
    digits = head[_CHECKSUM].strip(b" \0")
    if len(head) < _BLOCK or not digits or digits.strip(b"01234567"):
        return False
    return int(digits, 8) == sum(head[:_CHECKSUM_AT]) + 8 * 0x20 + sum(head[156:_BLOCK])


def looks_loadable(head: bytes, size: int) -> bool:
    """Whether a loader could be given a file of `size` bytes that begins so, and would unpickle something."""
    return is_loadable(head) or is_tar(head) or _looks_pickled(head, size)


def calls_something(names: Iterable[GlobalRef]) -> bool:
    """Whether one of the names is called, and could be a name."""
    return any(ref.called and _NAME.fullmatch(ref.module) and _NAME.fullmatch(ref.name) for ref in names)


def _looks_pickled(head: bytes, size: int) -> bool:
    if not head or head[0] not in _FIRST:
        return False
    budget = Budget(DEFAULT_LIMITS)
    budget.opcodes = _OPCODES
    found = unpickle(head, PlainBuilder(), stream="head", budget=budget)
    # One that breaks off within its first kilobyte has done nothing but what it has called till then.
    return calls_something(found.globals) or (found.ended and len(head) < size)

"""The plans that Megatron keeps in a `.metadata`: what each rank was to write, once more. No load asks for them.

They are passed over opcode by opcode, and built nowhere: only what brings a new global is run.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

from ckpt_rules.facts.tensors import GlobalRef, Opaque
from ckpt_rules.readers.opcode_lengths import MEMOIZE
from ckpt_rules.readers.pickle_stack import UNSET
from ckpt_rules.readers.sparse_memo import SparseMemo

_TEXTS = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(256))
_OPCODE = re.compile(rb"[(\]})NabestuR\x81\x85-\x89\x94]|[Kh].|M..|[Jj].{4}|\x8c(?:" + _TEXTS + b")|.", re.DOTALL)
_KNOWN = frozenset(bytes([n]) for n in b"(]})NabestuR\x81\x85\x86\x87\x88\x89\x94")
_MARK, _BUILD, _CLOSING = b"(", b"b", frozenset((b"e", b"u", b"t"))
_HARMLESS = ("torch.distributed.", "torch.serialization", "pathlib", "collections", "megatron.")


class Plans:
    """The items of the plans, of which nothing is kept.

    passed: whether some were passed over, so that values of the memo are unknown
    """

    width: ClassVar[int] = 1
    ends_with: ClassVar[int] = b"e"[0]

    def __init__(self, memo: SparseMemo, asked_for: Sequence[GlobalRef]) -> None:
        self._memo, self._asked_for = memo, asked_for
        self._starts, self._ends = array("Q"), array("Q")
        self._placeholder = Opaque("<passed over>")

    @property
    def passed(self) -> bool:
        """Whether any item was passed over."""
        return bool(self._starts)

    def add(self, *values: object) -> None:
        """Take an item that was run: there is nothing to keep."""

    def learn(self, data: bytes, start: int, end: int, *values: object) -> None:
        """Nothing: any item without a new global is passed over."""

    def read(self, data: bytes, pos: int, limit: int) -> int:
        """Pass over whole items; none where the pickle asks for anything that plans do not need."""
        if not all(g.module == "torch" or g.module.startswith(_HARMLESS) for g in self._asked_for):
            return pos
        opcodes = _OPCODE.findall(data, pos, limit)
        depth = done = 0
        for number, opcode in enumerate(opcodes, start=1):
            if opcode == _MARK:
                depth += 1
            elif opcode in _CLOSING:
                depth -= 1
                if depth < 0:
                    break
            elif opcode == _BUILD and not depth:
                done = number
            elif len(opcode) == 1 and opcode not in _KNOWN:
                break
        if not done:
            return pos
        passed = opcodes[:done]
        self._starts.append(len(self._memo))
        self._memo.skip(passed.count(MEMOIZE))
        self._ends.append(len(self._memo))
        return pos + sum(map(len, passed))

    def tell(self, index: int) -> object:
        """What stands for a value of the memo that was passed over; `UNSET` where none was."""
        place = bisect_right(self._starts, index) - 1
        return self._placeholder if place >= 0 and index < self._ends[place] else UNSET

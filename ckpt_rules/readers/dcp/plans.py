"""The plans that Megatron keeps in a `.metadata`: what each rank was to write, once more. No load asks for them.

They are passed over opcode by opcode, and built nowhere: only what brings a new global, or touches what was read, is run. What
is of the wrong type inside of them is therefore not noticed.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import ClassVar

from ckpt_rules.facts.tensors import GlobalRef, Opaque
from ckpt_rules.readers.pickle.sparse_memo import SparseMemo
from ckpt_rules.readers.pickle.stack import UNSET

_TEXTS = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(256))
_OPCODE = re.compile(
    rb"[(\]})NabestuR\x81\x85-\x89\x94]|[Kh].|M..|[Jj].{4}|G.{8}|\x8a(?:\x05.{5}|\x06.{6}|\x07.{7}|\x08.{8})|\x8c(?:"
    + _TEXTS
    + b")|.",
    re.DOTALL,
)
_GETS = b"hj"
_MARK, _BUILD, _SETITEMS, _MEMOIZE = b"(bu\x94"
_CLOSING = {b"e"[0]: 0, b"u"[0]: 0, b"t"[0]: 1}
"""What is put on the stack in the place of all that lies above the last mark."""

_GROWS = dict.fromkeys(b"KMJhjG\x8a\x8c]})N\x88\x89", 1) | dict.fromkeys(b"\x85\x94", 0)
_GROWS |= dict.fromkeys(b"\x86R\x81ba", -1) | dict.fromkeys(b"\x87s", -2)
"""By how much each opcode lets the stack grow."""

_LONGER = frozenset(b"KMJhjG\x8a\x8c")
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
        self._changeable: frozenset[int] | None = None
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
        if self._changeable is None:
            self._changeable = self._memo.changeable()
        end, memos = self._pass(data, pos, limit)
        if end > pos:
            self._starts.append(len(self._memo))
            self._memo.skip(memos)
            self._ends.append(len(self._memo))
        return end

    def _pass(self, data: bytes, pos: int, limit: int) -> tuple[int, int]:
        """The byte behind the last whole item, and how many values of the memo there are up to it."""
        end, memos, new = pos, 0, 0
        height, below = 0, list[int]()
        changeable = self._changeable or frozenset()
        for found in _OPCODE.finditer(data, pos, limit):
            opcode = found[0]
            code = opcode[0]
            new += code == _MEMOIZE
            if code == _MARK:
                below.append(height)
                height = 0
                continue
            if code in _CLOSING and below and (code != _SETITEMS or height % 2 == 0):
                height = below.pop() + _CLOSING[code]
            elif code in _GROWS and (len(opcode) > 1 or code not in _LONGER):
                height += _GROWS[code]
            else:
                break
            if height < 1 or (code in _GETS and int.from_bytes(opcode[1:], "little") in changeable):
                break
            if code == _BUILD and height == 1 and not below:
                end, memos, height = found.end(), new, 0
        return end, memos

    def tell(self, index: int) -> object:
        """What stands for a value of the memo that was passed over; `UNSET` where none was."""
        place = bisect_right(self._starts, index) - 1
        return self._placeholder if place >= 0 and index < self._ends[place] else UNSET

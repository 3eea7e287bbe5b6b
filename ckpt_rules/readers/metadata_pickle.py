"""The pickle of a large `.metadata`: run up to where its dictionaries repeat themselves, and read from there on.

The machine runs the first pairs of each dictionary, and whatever is unlike those before it.
"""

from __future__ import annotations

from contextlib import suppress

from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.metadata_names import Names
from ckpt_rules.readers.metadata_pairs import Pairs, Paths, Places, Tensors, Unlike
from ckpt_rules.readers.pickle_machine import end_frame
from ckpt_rules.readers.pickle_opcodes import TABLE, UNNOTED
from ckpt_rules.readers.pickle_stack import Builder, FrameOpened, Machine
from ckpt_rules.readers.sparse_memo import SparseMemo

_PAIR = 2
_KEPT_NBYTES = 200
"""Of a pair, about: what is built to run it is let go."""

_FRAME_NBYTES = 9
_SETITEMS, _FRAME, _STOP = b"u\x95."
_NEXT = frozenset(b"\x8cXhju")
"""What can follow a pair: the key of the next, or the end of the pairs."""


class MetadataMachine(Machine):
    """A pickle machine that has the pairs of large dictionaries read without being built.

    filled: the dictionaries whose pairs were read, by name; they are left empty
    """

    __slots__ = ("_is_reading", "_memo", "_readers", "filled", "places", "tensors")

    def __init__(self, data: bytes, builder: Builder, stream: str, start: int, budget: Budget) -> None:
        super().__init__(data, builder, stream, start, budget)
        self.memo = self._memo = SparseMemo()
        names = Names()
        self.tensors, self.places = Tensors(names, self._memo), Places(names, self._memo)
        paths = Paths(self._memo)
        self._memo.further = [names.tell, paths.tell]
        self._readers: dict[str, Pairs] = {
            "state_dict_metadata": self.tensors,
            "planner_data": paths,
            "storage_data": self.places,
        }
        self._is_reading = False
        self.filled: dict[str, dict[object, object]] = {}

    def mark(self) -> None:
        """Open a mark; where it is that of the pairs of a large dictionary, read them."""
        super().mark()
        below = self.under[-1]
        if self._is_reading or len(below) < _PAIR or type(below[-2]) is not str or below[-1] != {}:
            return
        name, target = below[-_PAIR:]
        if (reader := self._readers.get(name)) is None:
            return
        if self.filled.setdefault(name, target) is not target:
            raise Unlike("two dictionaries have one name")
        self._is_reading = True
        self._read_pairs(reader)
        self._is_reading = False

    def _read_pairs(self, reader: Pairs) -> None:
        """Read pairs up to the opcode that sets them, of which there are then none."""
        level = len(self.under)
        self._settle()
        while self._next() != _SETITEMS:
            if self.pos >= self.size:
                raise Unlike("the pickle ends inside a dictionary")
            before = self.pos
            self.pos = reader.read(self.data, self.pos, self.frame_end or self.size)
            self._settle()
            if self.pos == before:
                self._run_pair(reader, level)

    def _run_pair(self, reader: Pairs, level: int) -> None:
        """Run one pair as any machine does, and let the reader learn it."""
        start, room = self.pos, self.room
        is_framed = False
        while not self._has_pair(level):
            is_framed = self._step() or is_framed
            if len(self.under) < level:
                raise Unlike("a pair reaches below its own values")
        key, value = self.stack
        self.stack.clear()
        reader.add(key, value)
        if not is_framed:
            reader.learn(self.data, start, self.pos, key, value)
        self.room = room - _KEPT_NBYTES

    def _has_pair(self, level: int) -> bool:
        """Whether there is a key with a finished value: what is pushed on its way to one is text, or goes on."""
        at_its_end = len(self.under) == level and len(self.stack) == _PAIR and self._next() in _NEXT
        return at_its_end and isinstance(self.stack[1], Opaque | tuple)

    def _step(self) -> bool:
        """Run one opcode; whether a frame begins or ends with it."""
        self.at = self.pos
        code = self.data[self.pos]
        self.budget.opcodes -= 1
        if self.budget.opcodes < 0:
            most = self.limits.opcodes
            raise LimitError.past("opcodes", f"the pickle {self.stream} goes past {most:,} opcodes in one file")
        if code == _STOP:
            raise Unlike("the pickle stops inside a dictionary")
        self.pos += 1
        (UNNOTED if self.refused else TABLE)[code](self)
        return self._settle()

    def _settle(self) -> bool:
        """Go past the edge of a frame, where there is one."""
        was = self.frame_end
        if was and self.pos >= was:
            end_frame(self)
        if not self.frame_end and self.pos + _FRAME_NBYTES <= self.size and self.data[self.pos] == _FRAME:
            self.pos += 1
            with suppress(FrameOpened):
                TABLE[_FRAME](self)
        return self.frame_end != was

    def _next(self) -> int:
        return self.data[self.pos] if self.pos < self.size else _STOP

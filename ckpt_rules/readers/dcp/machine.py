"""The pickle of a large `.metadata`: run up to where its dictionaries repeat themselves, and read from there on.

The machine runs the first pairs of each, and whatever is unlike those before it.
"""

from __future__ import annotations

from contextlib import suppress

from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.dcp.names import Names
from ckpt_rules.readers.dcp.pairs import Paths, Places, Tensors, Unlike, Values
from ckpt_rules.readers.dcp.plans import Plans
from ckpt_rules.readers.pickle.machine import BLOCK, end_frame
from ckpt_rules.readers.pickle.opcode_lengths import asked_for, op_starts
from ckpt_rules.readers.pickle.opcodes import TABLE, UNNOTED
from ckpt_rules.readers.pickle.sparse_memo import SparseMemo, is_changeable
from ckpt_rules.readers.pickle.stack import Builder, FrameOpened, Machine

_PAIR = 2
_PLANS, _NEAR = "all_local_plans", 6
_KEPT_NBYTES = 200
"""Of a pair, about: what is built to run it is let go."""

_FRAME_NBYTES = 9
_FRAME, _STOP = b"\x95."
_NEXT = frozenset(b"\x8cXhjue")
"""What can follow a value: the next, or the end of all."""


class MetadataMachine(Machine):
    """A pickle machine that has what fills large dictionaries and lists read without being built.

    filled: the dictionaries that were read, by name; they are left empty
    """

    __slots__ = ("_is_reading", "_memo", "_plans", "_readers", "filled", "places", "tensors")

    def __init__(self, data: bytes, builder: Builder, stream: str, start: int, budget: Budget) -> None:
        super().__init__(data, builder, stream, start, budget)
        self.memo = self._memo = SparseMemo()
        names = Names()
        self.tensors, self.places = Tensors(names, self._memo), Places(names, self._memo)
        paths = Paths(self._memo)
        self._plans = Plans(self._memo, self.globals)
        self._memo.further = [names.tell, paths.tell, self._plans.tell]
        self._readers: dict[str, Values] = {
            "state_dict_metadata": self.tensors,
            "planner_data": paths,
            "storage_data": self.places,
        }
        self._is_reading = False
        self.filled: dict[str, dict[object, object]] = {}

    def mark(self) -> None:
        """Open a mark; where it is that of the values of a large dictionary or list, read them."""
        super().mark()
        below = self.under[-1]
        if self._is_reading or len(below) < _PAIR or type(below[-2]) is not str:
            return
        name, target = below[-_PAIR:]
        if target == {} and (reader := self._readers.get(name)):
            if self.filled.setdefault(name, target) is not target or self._plans.passed:
                raise Unlike("a dictionary comes twice, or late")
        elif target == [] and name == "items" and any(_PLANS in level[-_NEAR:] for level in self.under):
            reader = self._plans
        else:
            return
        frame_end, self._is_reading = self.frame_end, True
        self._read_all(reader)
        self._is_reading = False
        if self.frame_end != frame_end:
            # The machine begins another block of opcodes, and counts this one as if it had run to its end.
            self.budget.opcodes += BLOCK

    def _read_all(self, reader: Values) -> None:
        """Read up to the opcode that sets or appends what was read, which is then nothing."""
        level = len(self.under)
        self._settle()
        while self._next() != reader.ends_with:
            if self.pos >= self.size:
                raise Unlike("the pickle ends inside a dictionary or list")
            before = self.pos
            self.pos = reader.read(self.data, self.pos, self.frame_end or self.size)
            self._settle()
            if self.pos == before:
                self._run_one(reader, level)

    def _run_one(self, reader: Values, level: int) -> None:
        """Run a pair, or an element, as any machine does, and let the reader learn it."""
        start, room, known = self.pos, self.room, len(self._memo)
        is_framed = False
        while not self._is_whole(reader, level):
            is_framed = self._step() or is_framed
            if len(self.under) < level:
                raise Unlike("a value reaches below itself")
        values = tuple(self.stack)
        self.stack.clear()
        reader.add(*values)
        if not is_framed and self._is_alike_again(start, known):
            reader.learn(self.data, start, self.pos, *values)
        self._memo.forget_since(known)
        self.room = room - _KEPT_NBYTES

    def _is_alike_again(self, start: int, known: int) -> bool:
        """Whether the same bytes do the same wherever they come again: they use nothing of their own, and nothing that changes."""
        starts = op_starts(self.data, start, self.pos)
        used = [] if starts is None else asked_for(self.data, starts)
        return starts is not None and not any(n >= known or is_changeable(self._memo[n]) for n in used)

    def _is_whole(self, reader: Values, level: int) -> bool:
        """Whether the stack holds a finished value: what is pushed on its way to one is text, or continues."""
        if len(self.stack) != reader.width or len(self.under) != level:
            return False
        return isinstance(self.stack[-1], Opaque | tuple) and self._next() in _NEXT

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

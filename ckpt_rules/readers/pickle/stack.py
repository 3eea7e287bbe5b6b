"""The state of a pickle machine: its stack, its marks, its memo, and what it may do with them.

Nothing here calls what a pickle names. Every resource is bounded: memory by an estimate that what is built runs up, open
marks, gaps in the memo, and the cost of hashing a dictionary key, for which the C unpickler would compute for ever.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol, Self, cast

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import GlobalRef, Opaque
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.pickle.enclosed import Enclosed, is_loadable
from ckpt_rules.readers.pickle.keys import ByteArray, KeyGuard

_GETATTR, _GETATTR_ARGS = ("builtins", "getattr"), 2
_LOAD_BYTES = ("torch.storage", "_load_from_bytes")
_FROM_TYPE = ("torch._tensor", "_rebuild_from_type_v2")  # calls its first argument with its third

# Estimates of what CPython takes, in bytes.
OBJECT, CONTAINER, SLOT, PAIR, OPAQUE, NAME = 44, 72, 9, 110, 360, 400

_LAST_MAPPED = 3


class Global(str):
    """An importable name that was asked for and not imported; its text is `module.name`.

    called: whether the pickle calls it, or builds an instance of it
    given:  whether it calls it with arguments, and does not only fill a new instance
    """

    __slots__ = ("called", "given", "module", "name")

    module: str
    name: str
    called: bool
    given: bool

    def __new__(cls, module: str, name: str) -> Self:
        """The name `name` of the module `module`, kept apart: a dot in either must not make it look like another."""
        self = super().__new__(cls, f"{module}.{name}")
        self.module, self.name = module, name
        self.called = self.given = False
        return self


_ITEM: dict[type, int] = {
    dict: PAIR,
    set: SLOT * 8,
    frozenset: SLOT * 8,
    list: SLOT,
    tuple: SLOT,
    str: 1,
    bytes: 1,
    ByteArray: 1,
}


class Builder(Protocol):
    """What stands in for calling things."""

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of `function(*args)`."""
        ...

    def new(self, kind: object, args: tuple[object, ...]) -> object:
        """The inert value of `kind.__new__(kind, *args)`."""
        ...

    def persistent(self, pid: object) -> object:
        """The inert value of a persistent id: in torch files, a storage."""
        ...


class Memo(Protocol):
    """What a machine asks of its memo: a list gives it."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> object: ...
    def __setitem__(self, index: int, value: object, /) -> None: ...
    def append(self, value: object, /) -> None:
        """Remember a value under the next number."""
        ...

    def extend(self, values: Iterable[object], /) -> None:
        """Remember values under the next numbers."""
        ...


class Ended(FormatError):
    """The bytes end before the pickle does."""


class Stop(Exception):
    """The STOP opcode was reached."""


class FrameOpened(Exception):
    """The FRAME opcode was reached: the run continues, up to where the frame ends."""


class Machine:
    """The state of one run: a stack, the stacks below open marks, the memo."""

    __slots__ = (
        "at",
        "budget",
        "builder",
        "data",
        "enclosed",
        "frame_end",
        "globals",
        "inner",
        "keys",
        "known",
        "limits",
        "memo",
        "networks",
        "notes",
        "ordered",
        "pos",
        "protocol",
        "refused",
        "room",
        "run_inner",
        "size",
        "stack",
        "stream",
        "under",
    )

    run_inner: Callable[[Machine], None]
    """Steps over a pickle that lies in the middle of this one; set by whoever runs the machine, for it runs that one too."""

    def __init__(self, data: bytes, builder: Builder, stream: str, start: int, budget: Budget) -> None:
        self.data, self.size, self.pos, self.at = data, len(data), start, start
        self.builder, self.stream = builder, stream
        self.stack: list[Any] = []
        self.under: list[list[Any]] = []
        self.memo: Memo = []
        self.globals: list[GlobalRef] = []
        self.inner: list[GlobalRef] = []  # of pickles in the middle of this one
        self.known: dict[tuple[str, str], Global] = {}
        self.enclosed: list[Enclosed] = []
        self.notes: list[tuple[str, int]] = []
        self.refused: tuple[str, int] | None = None
        self.networks: set[str] = set()  # types of what is filled as a module of torch is
        self.ordered: set[int] = set()
        self.protocol = 0
        self.frame_end = 0
        self.budget, self.room = budget, budget.room
        self.limits = budget.limits
        self.keys = KeyGuard(budget.limits)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.pos + count
        if count < 0 or end > self.size:
            raise Ended(f"the pickle {self.stream} announces {count:,} bytes where {self.size - self.pos:,} are left")
        raw = self.data[self.pos : end]
        self.pos = end
        return raw

    def number(self, layout: struct.Struct) -> int:
        """The next number of a fixed size."""
        at = self.pos
        self.pos = at + layout.size
        value: int = layout.unpack_from(self.data, at)[0]
        return value

    def line(self) -> bytes:
        """The rest of the line, without its end."""
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            raise Ended(f"the pickle {self.stream} ends inside a line")
        raw = self.data[self.pos : end]
        self.pos = end + 1
        return raw

    def charge(self, nbytes: int) -> None:
        """Count memory that is about to be taken."""
        self.room -= nbytes
        if self.room < 0:
            self.check_room()

    def check_room(self) -> None:
        """LimitError where more is taken than there is: what is small is counted at once, and checked now and then."""
        if self.room < SLOT * len(self.stack):
            raise self.budget.overdrawn(f"what the pickle {self.stream} builds")

    def push(self, value: object, nbytes: int = OBJECT) -> None:
        """Put a new value of some size on the stack."""
        self.room -= nbytes
        self.stack.append(value)

    def mark(self) -> None:
        """Open a mark: what follows lies on a stack of its own."""
        if len(self.under) >= self.limits.marks:
            raise LimitError.past("marks", f"the pickle {self.stream} nests deeper than {self.limits.marks:,}")
        self.under.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Close the last mark; what lay above it."""
        items = self.stack
        self.stack = self.under.pop()
        return items

    def put(self, index: int) -> None:
        """Remember the top of the stack. Picklers number one by one; what never could be reached is not kept room for."""
        memo, value = self.memo, self.stack[-1]
        gap = index - len(memo)
        if gap < 0 <= index:
            memo[index] = value
            return
        if not 0 <= gap <= self.limits.memo_gap:
            what = f"the pickle {self.stream} numbers a value {index:,} after {len(memo):,} values"
            raise LimitError.past("memo_gap", what)
        self.room -= SLOT * (gap + 1)
        memo.extend([UNSET] * gap)
        memo.append(value)

    def get(self, index: int) -> None:
        """Put a remembered value on the stack."""
        value = self.memo[index] if 0 <= index < len(self.memo) else UNSET
        if value is UNSET:
            raise FormatError(f"the pickle {self.stream} asks for value {index:,}, which was never stored")
        self.stack.append(value)

    def refuse(self, what: str) -> None:
        """Note what torch's weights-only loader does not do, though other unpicklers do: the first is enough."""
        if self.refused is None:
            self.refused = what, self.at

    def find_global(self, module: object, name: object) -> Global:
        """An importable name, recorded with the byte that first asks for it.

        Python 2's names become Python 3's in every protocol that torch reads by default.
        """
        if not isinstance(module, str) or not isinstance(name, str):
            raise FormatError("a global is asked for by something that is not text")
        if self.protocol <= _LAST_MAPPED:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        known = self.known.get((module, name))
        if known is None:
            self.charge(NAME + 8 * (len(module) + len(name)))
            self.globals.append(GlobalRef(module, name, self.stream, self.at))
            known = self.known[module, name] = Global(module, name)
        return known

    def call(self, function: object, args: object, *, new: bool = False) -> None:
        """Put the inert value of a call on the stack, or with `new` that of an instance to be filled."""
        if not isinstance(args, tuple):
            raise FormatError("something is called with arguments that are not a tuple")
        if type(function) is Global:
            function.called = True
            function.given = function.given or (bool(args) and not new)
            self._note_call((function.module, function.name), args)
        if type(function) is Opaque:
            self.refuse("calls what another call returned")
        value = self.builder.new(function, args) if new else self.builder.build(function, args)
        if type(value) is dict:
            self.ordered.add(id(value))
        item = _ITEM.get(type(value))
        self.charge(OPAQUE if item is None else CONTAINER + item * len(cast("Sized", value)))
        if isinstance(value, bytes):
            self.note_bytes(value)
        self.stack.append(value)

    def _note_call(self, function: tuple[str, str], args: tuple[object, ...]) -> None:
        """Keep what follows from some calls: attributes that are reached, bytes that are loaded whatever they look like."""
        if function == _GETATTR:
            self._reach(args)
        elif function == _LOAD_BYTES and args and isinstance(args[0], bytes) and not is_loadable(args[0]):
            self.enclosed.append(Enclosed(self.stream, self.at, args[0]))
        elif function == _FROM_TYPE and args and type(args[0]) is Global:
            args[0].called = args[0].given = True
        if any(type(a) is Global and (a.module, a.name) == _GETATTR for a in args):
            self._reach(())

    def _reach(self, args: tuple[object, ...]) -> None:
        """Record what `getattr` leads to: the attribute of a global, or, of anything else, that it was called at all."""
        if len(args) == _GETATTR_ARGS and type(args[0]) is Global and isinstance(args[1], str):
            module, name = args[0].module, f"{args[0].name}.{args[1]}"
        else:
            module, name = _GETATTR[0], f"{_GETATTR[1]}.__call__"
        self.charge(NAME + 8 * len(name))
        self.globals.append(GlobalRef(module, name, self.stream, self.at, reached=True))

    def note_bytes(self, raw: bytes) -> None:
        """Keep bytes that something could load."""
        if is_loadable(raw):
            if len(self.enclosed) >= self.limits.enclosed:
                most = self.limits.enclosed
                raise LimitError.past(
                    "enclosed", f"the pickle {self.stream} holds more than {most:,} pickles and archives"
                )
            self.enclosed.append(Enclosed(self.stream, self.at, raw))

    def set_items(self, target: object, items: list[Any]) -> None:
        """Set keys and values, which alternate in `items`."""
        if len(items) % 2:
            raise FormatError("a key without a value")
        self.room -= PAIR // 2 * len(items)
        if isinstance(target, dict):
            for i in range(0, len(items), 2):
                key = items[i]
                target[key if type(key) is str else self.keys.check(key)] = items[i + 1]
        elif isinstance(target, Opaque):
            self.refuse(f"sets items in a {target.type}")
            target.pairs.extend(zip(items[::2], items[1::2], strict=True))
        else:
            raise FormatError(f"items are set in a {type(target).__name__}")

    def append_items(self, target: object, items: list[Any]) -> None:
        """Append to a list, or to whatever stands in for one."""
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Opaque):
            self.refuse(f"appends to a {target.type}")
            target.items.extend(items)
        else:
            raise FormatError(f"items are appended to a {type(target).__name__}")

    def add_items(self, target: object, items: list[Any]) -> None:
        """Add to a set, or to whatever stands in for one."""
        self.room -= PAIR * len(items)
        if isinstance(target, set):
            target.update(map(self.keys.check, items))
        else:
            self.append_items(target, items)


class _Unset:
    """The type of what stands for an unused number of the memo."""


UNSET = _Unset()

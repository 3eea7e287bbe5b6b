"""The state of a pickle machine: its stack, its marks, its memo, and what it may do with them.

Nothing here calls what a pickle names. The memo is a dictionary, so that a huge index costs nothing, and every resource is
bounded: objects, open marks, and the size of a dictionary key, whose hash the C unpickler would compute for ever.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import Any, Protocol, Self

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import GlobalRef, Opaque

MAX_OBJECTS = 1_000_000
MAX_MARKS = 2_000
MAX_KEY_PARTS = 1_000

_PYTHON_3 = 3


class Global(str):
    """An importable name that was asked for and not imported; its text is `module.name`."""

    __slots__ = ("module", "name")

    module: str
    name: str

    def __new__(cls, module: str, name: str) -> Self:
        """The name `name` of the module `module`, kept apart: a dot in either must not make it look like another."""
        self = super().__new__(cls, f"{module}.{name}")
        self.module, self.name = module, name
        return self


class Builder(Protocol):
    """What stands in for calling things."""

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of `function(*args)`."""
        ...

    def persistent(self, pid: object) -> object:
        """The inert value of a persistent id: in torch files, a storage."""
        ...


class LimitError(FormatError):
    """More of something than is read."""


class Stop(Exception):
    """The STOP opcode was reached."""


class Machine:
    """The state of one run: a stack, the stacks below open marks, the memo."""

    __slots__ = (
        "at",
        "builder",
        "data",
        "globals",
        "memo",
        "objects",
        "pos",
        "protocol",
        "size",
        "stack",
        "stream",
        "under",
    )

    def __init__(self, data: bytes, builder: Builder, stream: str, start: int) -> None:
        self.data, self.size, self.pos, self.at = data, len(data), start, start
        self.builder, self.stream = builder, stream
        self.stack: list[Any] = []
        self.under: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.globals: list[GlobalRef] = []
        self.protocol = 0
        self.objects = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.pos + count
        if count < 0 or end > self.size:
            raise FormatError(
                f"the pickle {self.stream} announces {count:,} bytes where {self.size - self.pos:,} are left"
            )
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
            raise FormatError(f"the pickle {self.stream} ends inside a line")
        raw = self.data[self.pos : end]
        self.pos = end + 1
        return raw

    def made(self) -> None:
        """Count one more object that takes memory."""
        self.objects += 1
        if self.objects > MAX_OBJECTS:
            raise LimitError(f"the pickle {self.stream} builds more than {MAX_OBJECTS:,} objects")

    def mark(self) -> None:
        """Open a mark: what follows lies on a stack of its own."""
        if len(self.under) >= MAX_MARKS:
            raise LimitError(f"the pickle {self.stream} nests deeper than {MAX_MARKS:,}")
        self.under.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """Close the last mark; what lay above it."""
        items = self.stack
        self.stack = self.under.pop()
        return items

    def find_global(self, module: object, name: object) -> Global:
        """An importable name, recorded with its byte; Python 2's names become Python 3's, as torch reads them."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise FormatError("a global is asked for by something that is no text")
        if self.protocol < _PYTHON_3:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        self.globals.append(GlobalRef(module, name, self.stream, self.at))
        return Global(module, name)

    def call(self, function: object, args: object) -> None:
        """Put the inert value of a call on the stack."""
        if not isinstance(args, tuple):
            raise FormatError("something is called with arguments that are no tuple")
        self.made()
        self.stack.append(self.builder.build(function, args))

    def set_items(self, target: object, items: list[Any]) -> None:
        """Set keys and values, which alternate in `items`."""
        if len(items) % 2:
            raise FormatError("a key without a value")
        if isinstance(target, dict):
            for i in range(0, len(items), 2):
                key = items[i]
                target[key if type(key) is str or type(key) is int else hashable(key)] = items[i + 1]
        elif isinstance(target, Opaque):
            target.pairs.extend(zip(items[::2], items[1::2], strict=True))
        else:
            raise FormatError(f"items are set in a {type(target).__name__}")

    def append_items(self, target: object, items: list[Any]) -> None:
        """Append to a list, or to whatever stands in for one."""
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Opaque):
            target.items.extend(items)
        else:
            raise FormatError(f"items are appended to a {type(target).__name__}")

    def add_items(self, target: object, items: list[Any]) -> None:
        """Add to a set, or to whatever stands in for one."""
        if isinstance(target, set):
            target.update(map(hashable, items))
        else:
            self.append_items(target, items)


def hashable(key: object) -> object:
    """The key itself where hashing it is cheap and means something; FormatError otherwise."""
    left = [key]
    for _ in range(MAX_KEY_PARTS):
        if not left:
            return key
        part = left.pop()
        if isinstance(part, tuple):
            left.extend(part[: MAX_KEY_PARTS + 1])
        elif not isinstance(part, str | int | float | complex | bytes | Opaque | frozenset | None):
            raise FormatError(f"a {type(part).__name__} is used as a key")
    raise LimitError(f"a key has more than {MAX_KEY_PARTS:,} parts")

"""A pickle machine that builds nothing but inert values, and knows the byte of everything it does.

It runs protocols 0 to 5 as the C unpickler does, with three differences. No callable is ever called: `build` turns the
known constructors into the plain value that they would have made, anything else into an `Opaque`. The memo is a
dictionary, so that a huge index costs nothing. And every resource is bounded: opcodes, objects, open marks, and the size
of a dictionary key, whose hash the C unpickler would compute for ever.

Format: CPython's `pickletools` documents every opcode.
"""

from __future__ import annotations

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import GlobalRef, Opaque, ReadProblem, TensorInfo

MAX_NBYTES = 64 << 20
MAX_OPCODES = 4_000_000
MAX_OBJECTS = 1_000_000
MAX_MARKS = 2_000
MAX_KEY_PARTS = 1_000

_HIGHEST_PROTOCOL = 5
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


@dataclass(frozen=True, slots=True)
class Unpickled:
    """One pickle. `end` is the byte behind its STOP; `value` is None where it broke, what it asked for is kept."""

    value: object
    globals: tuple[GlobalRef, ...]
    protocol: int
    end: int
    problems: tuple[ReadProblem, ...] = ()

    @property
    def readable(self) -> bool:
        """Whether the pickle ran to its STOP."""
        return not any(p.fatal for p in self.problems)


def unpickle(data: bytes, builder: Builder, *, stream: str, start: int = 0, base: int = 0) -> Unpickled:
    """Run the pickle that starts at `data[start]`.

    stream: what to call it in facts (`data.pkl`)
    base:   byte of `data[0]` in the file, so that problems name bytes of the file
    """
    machine = _Machine(data, builder, stream, start)
    fault = machine.run()
    problems = () if fault is None else (ReadProblem(fault[0], fault[1], base + machine.at, stream),)
    value = machine.stack[-1] if fault is None else None
    return Unpickled(value, tuple(machine.globals), machine.protocol, machine.pos, problems)


class _Stop(Exception):
    """The STOP opcode was reached."""


class _Machine:
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

    def run(self) -> tuple[str, str] | None:
        """Run to STOP; else the code and the sentence of the fault, with `at` on the opcode to blame."""
        data, table = self.data, _TABLE
        try:
            for _ in range(MAX_OPCODES):
                self.at = at = self.pos
                self.pos = at + 1
                table[data[at]](self)
        except _Stop:
            return None
        except FormatError as error:
            return ("limit" if error.offset else "pickle"), error.reason
        except (IndexError, struct.error):
            if self.pos >= self.size - 1:
                return "pickle", f"the pickle {self.stream} ends after {self.size:,} bytes without its STOP opcode"
            return "pickle", f"{self._opcode()} takes a value from an empty stack"
        except KeyError:
            return "pickle", f"{self._opcode()} is no pickle opcode, or asks for a value that was never stored"
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            return "pickle", f"{self._opcode()} can't be carried out: {error}"
        return "limit", f"the pickle {self.stream} has more than {MAX_OPCODES:,} opcodes"

    def _opcode(self) -> str:
        return f"opcode 0x{self.data[self.at]:02x} of the pickle {self.stream}"

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
        at = self.pos
        self.pos = at + layout.size
        value: int = layout.unpack_from(self.data, at)[0]
        return value

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.pos)
        if end < 0:
            raise FormatError(f"the pickle {self.stream} ends inside a line")
        raw = self.data[self.pos : end]
        self.pos = end + 1
        return raw

    def made(self) -> None:
        self.objects += 1
        if self.objects > MAX_OBJECTS:
            raise FormatError(f"the pickle {self.stream} builds more than {MAX_OBJECTS:,} objects", 1)

    def mark(self) -> None:
        if len(self.under) >= MAX_MARKS:
            raise FormatError(f"the pickle {self.stream} nests deeper than {MAX_MARKS:,}", 1)
        self.under.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.under.pop()
        return items

    def find_global(self, module: object, name: object) -> Global:
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
        if not isinstance(args, tuple):
            raise FormatError("something is called with arguments that are no tuple")
        self.made()
        self.stack.append(self.builder.build(function, args))

    def set_items(self, target: object, items: list[Any]) -> None:
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
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Opaque):
            target.items.extend(items)
        else:
            raise FormatError(f"items are appended to a {type(target).__name__}")

    def add_items(self, target: object, items: list[Any]) -> None:
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
    raise FormatError(f"a key has more than {MAX_KEY_PARTS:,} parts", 1)


_Op = Callable[[_Machine], None]
_U1, _U2, _U4, _U8 = (struct.Struct(f) for f in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def _proto(m: _Machine) -> None:
    m.protocol = m.number(_U1)
    if m.protocol > _HIGHEST_PROTOCOL:
        raise FormatError(f"the pickle {m.stream} has protocol {m.protocol}; the highest is {_HIGHEST_PROTOCOL}")


def _stop(m: _Machine) -> None:
    m.stack[-1]
    raise _Stop


def _dup(m: _Machine) -> None:
    m.stack.append(m.stack[-1])


def _pop(m: _Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _push(value: object) -> _Op:
    return lambda m: m.stack.append(value)


def _integer(layout: struct.Struct) -> _Op:
    return lambda m: m.stack.append(m.number(layout))


def _binint1(m: _Machine) -> None:
    m.stack.append(m.data[m.pos])
    m.pos += 1


def _text_int(m: _Machine) -> None:
    raw = m.line()
    m.stack.append({b"00": False, b"01": True}[raw] if raw in (b"00", b"01") else int(raw))


def _text_long(m: _Machine) -> None:
    m.stack.append(int(m.line().rstrip(b"L")))


def _long(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(int.from_bytes(m.take(m.number(size)), "little", signed=True))


def _binfloat(m: _Machine) -> None:
    m.stack.append(_F8.unpack(m.take(8))[0])


def _bytes(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(m.take(m.number(size)))


def _unicode(size: struct.Struct) -> _Op:
    def run(m: _Machine) -> None:
        m.stack.append(m.take(m.number(size)).decode("utf-8", "surrogatepass"))

    return run


def _python2_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _string(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(_python2_text(m.take(m.number(size))))


def _text_string(m: _Machine) -> None:
    raw = m.line()
    if len(raw) < len(b"''") or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
        raise FormatError("a text is not in quotes")
    m.stack.append(_python2_text(raw[1:-1].decode("unicode_escape").encode("latin-1", "replace")))


def _empty(kind: type[Any]) -> _Op:
    def run(m: _Machine) -> None:
        m.made()
        m.stack.append(kind())

    return run


def _tuple(count: int) -> _Op:
    def run(m: _Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return run


def _marked_tuple(m: _Machine) -> None:
    items = m.pop_mark()
    m.stack.append(tuple(items))


def _marked_list(m: _Machine) -> None:
    m.made()
    items = m.pop_mark()
    m.stack.append(items)


def _marked_dict(m: _Machine) -> None:
    m.made()
    items = m.pop_mark()
    target: dict[object, object] = {}
    m.set_items(target, items)
    m.stack.append(target)


def _frozenset(m: _Machine) -> None:
    items = m.pop_mark()
    m.stack.append(frozenset(map(hashable, items)))


def _append(m: _Machine) -> None:
    item = m.stack.pop()
    m.append_items(m.stack[-1], [item])


def _appends(m: _Machine) -> None:
    items = m.pop_mark()
    m.append_items(m.stack[-1], items)


def _setitem(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items(m.stack[-1], [key, value])


def _setitems(m: _Machine) -> None:
    items = m.pop_mark()
    m.set_items(m.stack[-1], items)


def _additems(m: _Machine) -> None:
    items = m.pop_mark()
    m.add_items(m.stack[-1], items)


def _text_get(m: _Machine) -> None:
    m.stack.append(m.memo[int(m.line())])


def _binget(m: _Machine) -> None:
    m.stack.append(m.memo[m.data[m.pos]])
    m.pos += 1


def _long_binget(m: _Machine) -> None:
    m.stack.append(m.memo[m.number(_U4)])


def _text_put(m: _Machine) -> None:
    m.memo[int(m.line())] = m.stack[-1]


def _binput(m: _Machine) -> None:
    m.memo[m.data[m.pos]] = m.stack[-1]
    m.pos += 1


def _long_binput(m: _Machine) -> None:
    m.memo[m.number(_U4)] = m.stack[-1]


def _memoize(m: _Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _global(m: _Machine) -> None:
    module, name = m.line(), m.line()
    m.stack.append(m.find_global(module.decode(), name.decode()))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.find_global(module, name))


def _inst(m: _Machine) -> None:
    module, name = m.line(), m.line()
    args = tuple(m.pop_mark())
    m.call(m.find_global(module.decode(), name.decode()), args)


def _obj(m: _Machine) -> None:
    function, *args = m.pop_mark()
    m.call(function, tuple(args))


def _reduce(m: _Machine) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.call(function, args)


def _newobj_ex(m: _Machine) -> None:
    kwargs, args, function = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.call(function, args)
    if kwargs and isinstance(m.stack[-1], Opaque) and isinstance(kwargs, dict):
        m.stack[-1].kwargs = kwargs


def _build(m: _Machine) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if isinstance(target, Opaque):
        target.state = state
    elif not isinstance(target, dict | list | set | TensorInfo):
        raise FormatError(f"a state is set in a {type(target).__name__}")


def _extension(size: struct.Struct) -> _Op:
    def run(m: _Machine) -> None:
        code = m.number(size)
        raise FormatError(f"the pickle {m.stream} asks for copyreg extension {code}, which no checkpoint needs")

    return run


def _persistent_text(m: _Machine) -> None:
    m.stack.append(m.builder.persistent(m.line().decode("ascii", "replace")))


def _persistent(m: _Machine) -> None:
    m.stack.append(m.builder.persistent(m.stack.pop()))


def _bytearray(m: _Machine) -> None:
    m.stack.append(m.take(m.number(_U8)))


def _out_of_band(m: _Machine) -> None:
    raise FormatError(f"the pickle {m.stream} keeps data in buffers outside of the file")


_OPCODES: dict[bytes, _Op] = {
    b"(": _Machine.mark, b".": _stop, b"0": _pop, b"1": lambda m: void(m.pop_mark()), b"2": _dup,
    b"F": lambda m: m.stack.append(float(m.line())), b"I": _text_int, b"J": _integer(_I4), b"K": _binint1,
    b"L": _text_long, b"M": _integer(_U2), b"N": _push(None), b"P": _persistent_text, b"Q": _persistent, b"R": _reduce,
    b"S": _text_string, b"T": _string(_I4), b"U": _string(_U1),
    b"V": lambda m: m.stack.append(m.line().decode("raw-unicode-escape")), b"X": _unicode(_U4),
    b"a": _append, b"b": _build, b"c": _global, b"d": _marked_dict, b"}": _empty(dict), b"e": _appends,
    b"g": _text_get, b"h": _binget, b"i": _inst, b"j": _long_binget, b"l": _marked_list,
    b"]": _empty(list), b"o": _obj, b"p": _text_put, b"q": _binput, b"r": _long_binput,
    b"s": _setitem, b"t": _marked_tuple, b")": _push(()), b"u": _setitems, b"G": _binfloat,
    b"\x80": _proto, b"\x81": _reduce, b"\x82": _extension(_U1), b"\x83": _extension(_U2), b"\x84": _extension(_I4),
    b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3), b"\x88": _push(True), b"\x89": _push(False),
    b"\x8a": _long(_U1), b"\x8b": _long(_I4),
    b"B": _bytes(_U4), b"C": _bytes(_U1),
    b"\x8c": _unicode(_U1), b"\x8d": _unicode(_U8), b"\x8e": _bytes(_U8), b"\x8f": _empty(set), b"\x90": _additems,
    b"\x91": _frozenset, b"\x92": _newobj_ex, b"\x93": _stack_global, b"\x94": _memoize,
    b"\x95": lambda m: void(m.take(8)), b"\x96": _bytearray, b"\x97": _out_of_band, b"\x98": _out_of_band,
}  # fmt: skip


def void(_: object) -> None:
    """Nothing; the table's functions return nothing."""


_TABLE: dict[int, _Op] = {code[0]: run for code, run in _OPCODES.items()}

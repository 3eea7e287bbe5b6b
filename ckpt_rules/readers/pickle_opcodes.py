"""What each pickle opcode does to the machine, protocols 0 to 5.

Format: CPython's `pickletools` documents every opcode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque, TensorInfo
from ckpt_rules.readers.pickle_stack import Machine, Stop, hashable

HIGHEST_PROTOCOL = 5

_Op = Callable[[Machine], None]
_U1, _U2, _U4, _U8 = (struct.Struct(f) for f in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def _proto(m: Machine) -> None:
    m.protocol = m.number(_U1)
    if m.protocol > HIGHEST_PROTOCOL:
        raise FormatError(f"the pickle {m.stream} has protocol {m.protocol}; the highest is {HIGHEST_PROTOCOL}")


def _stop(m: Machine) -> None:
    m.stack[-1]
    raise Stop


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _push(value: object) -> _Op:
    return lambda m: m.stack.append(value)


def _integer(layout: struct.Struct) -> _Op:
    return lambda m: m.stack.append(m.number(layout))


def _binint1(m: Machine) -> None:
    m.stack.append(m.data[m.pos])
    m.pos += 1


def _text_int(m: Machine) -> None:
    raw = m.line()
    m.stack.append({b"00": False, b"01": True}[raw] if raw in (b"00", b"01") else int(raw))


def _text_long(m: Machine) -> None:
    m.stack.append(int(m.line().rstrip(b"L")))


def _long(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(int.from_bytes(m.take(m.number(size)), "little", signed=True))


def _binfloat(m: Machine) -> None:
    m.stack.append(_F8.unpack(m.take(8))[0])


def _bytes(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(m.take(m.number(size)))


def _unicode(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        m.stack.append(m.take(m.number(size)).decode("utf-8", "surrogatepass"))

    return run


def _python2_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _string(size: struct.Struct) -> _Op:
    return lambda m: m.stack.append(_python2_text(m.take(m.number(size))))


def _text_string(m: Machine) -> None:
    raw = m.line()
    if len(raw) < len(b"''") or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
        raise FormatError("a text is not in quotes")
    m.stack.append(_python2_text(raw[1:-1].decode("unicode_escape").encode("latin-1", "replace")))


def _empty(kind: type[Any]) -> _Op:
    def run(m: Machine) -> None:
        m.made()
        m.stack.append(kind())

    return run


def _tuple(count: int) -> _Op:
    def run(m: Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return run


def _marked_tuple(m: Machine) -> None:
    items = m.pop_mark()
    m.stack.append(tuple(items))


def _marked_list(m: Machine) -> None:
    m.made()
    items = m.pop_mark()
    m.stack.append(items)


def _marked_dict(m: Machine) -> None:
    m.made()
    items = m.pop_mark()
    target: dict[object, object] = {}
    m.set_items(target, items)
    m.stack.append(target)


def _frozenset(m: Machine) -> None:
    items = m.pop_mark()
    m.stack.append(frozenset(map(hashable, items)))


def _append(m: Machine) -> None:
    item = m.stack.pop()
    m.append_items(m.stack[-1], [item])


def _appends(m: Machine) -> None:
    items = m.pop_mark()
    m.append_items(m.stack[-1], items)


def _setitem(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items(m.stack[-1], [key, value])


def _setitems(m: Machine) -> None:
    items = m.pop_mark()
    m.set_items(m.stack[-1], items)


def _additems(m: Machine) -> None:
    items = m.pop_mark()
    m.add_items(m.stack[-1], items)


def _text_get(m: Machine) -> None:
    m.stack.append(m.memo[int(m.line())])


def _binget(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.pos]])
    m.pos += 1


def _long_binget(m: Machine) -> None:
    m.stack.append(m.memo[m.number(_U4)])


def _text_put(m: Machine) -> None:
    m.memo[int(m.line())] = m.stack[-1]


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _global(m: Machine) -> None:
    module, name = m.line(), m.line()
    m.stack.append(m.find_global(module.decode(), name.decode()))


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.find_global(module, name))


def _inst(m: Machine) -> None:
    module, name = m.line(), m.line()
    args = tuple(m.pop_mark())
    m.call(m.find_global(module.decode(), name.decode()), args)


def _obj(m: Machine) -> None:
    function, *args = m.pop_mark()
    m.call(function, tuple(args))


def _reduce(m: Machine) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.call(function, args)


def _newobj_ex(m: Machine) -> None:
    kwargs, args, function = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.call(function, args)
    if kwargs and isinstance(m.stack[-1], Opaque) and isinstance(kwargs, dict):
        m.stack[-1].kwargs = kwargs


def _build(m: Machine) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if isinstance(target, Opaque):
        target.state = state
    elif not isinstance(target, dict | list | set | TensorInfo):
        raise FormatError(f"a state is set in a {type(target).__name__}")


def _extension(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        code = m.number(size)
        raise FormatError(f"the pickle {m.stream} asks for copyreg extension {code}, which no checkpoint needs")

    return run


def _persistent_text(m: Machine) -> None:
    m.stack.append(m.builder.persistent(m.line().decode("ascii", "replace")))


def _persistent(m: Machine) -> None:
    m.stack.append(m.builder.persistent(m.stack.pop()))


def _bytearray(m: Machine) -> None:
    m.stack.append(m.take(m.number(_U8)))


def _out_of_band(m: Machine) -> None:
    raise FormatError(f"the pickle {m.stream} keeps data in buffers outside of the file")


_OPCODES: dict[bytes, _Op] = {
    b"(": Machine.mark, b".": _stop, b"0": _pop, b"1": lambda m: void(m.pop_mark()), b"2": _dup,
    b"F": lambda m: m.stack.append(float(m.line())), b"I": _text_int, b"J": _integer(_I4), b"K": _binint1,
    b"L": _text_long, b"M": _integer(_U2), b"N": _push(None), b"P": _persistent_text, b"Q": _persistent, b"R": _reduce,
    b"S": _text_string, b"T": _string(_I4), b"U": _string(_U1),
    b"V": lambda m: m.stack.append(m.line().decode("raw-unicode-escape")), b"X": _unicode(_U4),
    b"a": _append, b"b": _build, b"c": _global, b"d": _marked_dict, b"}": _empty(dict), b"e": _appends,
    b"g": _text_get, b"h": _binget, b"i": _inst, b"j": _long_binget, b"l": _marked_list,
    b"]": _empty(list), b"o": _obj, b"p": _text_put,
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


TABLE: dict[int, _Op] = {code[0]: run for code, run in _OPCODES.items()}

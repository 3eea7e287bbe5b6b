"""What each pickle opcode does to the machine, protocols 0 to 5.

Format: CPython's `pickletools` documents every opcode.
"""

from __future__ import annotations

import struct
from codecs import escape_decode
from collections.abc import Callable
from typing import Any

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.readers.budget import LimitError
from ckpt_rules.readers.pickle.joblib_arrays import WRAPPER, skip_array
from ckpt_rules.readers.pickle.stack import CONTAINER, OBJECT, OPAQUE, PAIR, SLOT, Ended, FrameOpened, Machine, Stop

HIGHEST_PROTOCOL = 5
MAX_INT_NBYTES = 1_700  # Python converts no number of more than 4,300 digits to text

_Op = Callable[[Machine], None]
_U1, _U2, _U4, _U8 = (struct.Struct(f) for f in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")


def _proto(m: Machine) -> None:
    m.protocol = m.number(_U1)
    if m.protocol > HIGHEST_PROTOCOL:
        raise FormatError(f"the pickle {m.stream} has protocol {m.protocol}; the highest is {HIGHEST_PROTOCOL}")


def _mark(m: Machine) -> None:
    m.mark()


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


def _pop_mark(m: Machine) -> None:
    m.pop_mark()


def _push(value: object) -> _Op:
    def run(m: Machine) -> None:
        m.room -= SLOT
        m.stack.append(value)

    return run


def _integer(layout: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        m.room -= OBJECT
        m.stack.append(layout.unpack_from(m.data, m.pos)[0])
        m.pos += layout.size

    return run


def _text_int(m: Machine) -> None:
    raw = m.line()
    m.push({b"00": False, b"01": True}[raw] if raw in (b"00", b"01") else int(raw))


def _text_long(m: Machine) -> None:
    m.push(int(m.line().rstrip(b"L")))


def _long(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        raw = m.take(m.number(size))
        if len(raw) > MAX_INT_NBYTES:
            raise LimitError(f"the pickle {m.stream} holds a number of {len(raw):,} bytes")
        m.push(int.from_bytes(raw, "little", signed=True), OBJECT + len(raw))

    return run


def _text_float(m: Machine) -> None:
    m.push(float(m.line()))


def _binfloat(m: Machine) -> None:
    m.push(_F8.unpack_from(m.data, m.pos)[0])
    m.pos += _F8.size


def _bytes(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        raw = m.take(m.number(size))
        m.charge(OBJECT + len(raw))
        m.note_bytes(raw)
        m.stack.append(raw)

    return run


def _push_text(m: Machine, text: str, nbytes: int) -> None:
    # One character beyond ASCII widens all others.
    m.charge(2 * OBJECT + (nbytes if text.isascii() else 4 * len(text)))
    m.stack.append(text)


def _unicode(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        start = m.pos + size.size
        end = start + size.unpack_from(m.data, m.pos)[0]
        if end > m.size:
            raise Ended(f"the pickle {m.stream} announces {end - start:,} bytes where {m.size - start:,} are left")
        m.pos = end
        m.charge(end - start)
        _push_text(m, m.data[start:end].decode("utf-8", "surrogatepass"), 0)

    return run


def _text_unicode(m: Machine) -> None:
    raw = m.line()
    _push_text(m, raw.decode("raw-unicode-escape"), len(raw))


def _python2_text(m: Machine, raw: bytes) -> None:
    try:
        _push_text(m, raw.decode(), len(raw))
    except UnicodeDecodeError:
        if not m.notes:
            m.notes.append(
                ("a byte string of Python 2 is not UTF-8, so torch.load takes it with encoding='latin1' only", m.at)
            )
        m.note_bytes(raw)
        m.push(raw, OBJECT + len(raw))


def _string(size: struct.Struct) -> _Op:
    return lambda m: _python2_text(m, m.take(m.number(size)))


def _text_string(m: Machine) -> None:
    raw = m.line()
    if len(raw) < len(b"''") or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
        raise FormatError("a text is not in quotes")
    _python2_text(m, escape_decode(raw[1:-1])[0])


def _empty(kind: type[Any], nbytes: int) -> _Op:
    def run(m: Machine) -> None:
        m.room -= nbytes
        m.stack.append(kind())

    return run


def _tuple(count: int) -> _Op:
    def run(m: Machine) -> None:
        stack = m.stack
        if len(stack) < count:
            raise IndexError
        m.room -= CONTAINER
        stack[-count:] = [tuple(stack[-count:])]

    return run


def _marked_tuple(m: Machine) -> None:
    items = m.stack
    m.stack = m.under.pop()
    m.room -= CONTAINER + SLOT * len(items)
    m.stack.append(tuple(items))


def _marked_list(m: Machine) -> None:
    m.push(m.pop_mark(), CONTAINER)


def _marked_dict(m: Machine) -> None:
    items = m.pop_mark()
    m.push({}, CONTAINER)
    m.set_items(m.stack[-1], items)


def _frozenset(m: Machine) -> None:
    items = m.pop_mark()
    m.push(frozenset(map(m.keys.check, items)), PAIR * (len(items) + 1))


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
    m.get(int(m.line()))


def _binget(m: Machine) -> None:
    m.pos += 1
    m.get(m.data[m.pos - 1])


def _long_binget(m: Machine) -> None:
    m.get(m.number(_U4))


def _text_put(m: Machine) -> None:
    m.put(int(m.line()))


def _binput(m: Machine) -> None:
    m.pos += 1
    m.put(m.data[m.pos - 1])


def _long_binput(m: Machine) -> None:
    m.put(m.number(_U4))


def _memoize(m: Machine) -> None:
    m.put(len(m.memo))


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


def _newobj(m: Machine) -> None:
    args, kind = m.stack.pop(), m.stack.pop()
    m.call(kind, args, new=True)


def _newobj_ex(m: Machine) -> None:
    kwargs, args, function = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.call(function, args, new=True)
    if kwargs and isinstance(m.stack[-1], Opaque) and isinstance(kwargs, dict):
        m.stack[-1].kwargs = kwargs


def _build(m: Machine) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if isinstance(target, Opaque):
        target.state = state
        if type(state) is dict and "_parameters" in state and "_modules" in state:
            m.networks.add(target.type)
        if target.type == WRAPPER and not skip_array(m, target):
            m.run_inner(m)
    elif id(target) not in m.ordered or not isinstance(state, dict):
        # OrderedDict and the like have attributes, a plain dict has none.
        raise FormatError(f"a state is set in a {type(target).__name__}")


def _extension(size: struct.Struct) -> _Op:
    def run(m: Machine) -> None:
        code = m.number(size)
        raise FormatError(f"the pickle {m.stream} asks for copyreg extension {code}, which no checkpoint needs")

    return run


def _persistent_text(m: Machine) -> None:
    m.charge(OPAQUE)
    m.stack.append(m.builder.persistent(m.line().decode("ascii", "replace")))


def _persistent(m: Machine) -> None:
    m.room -= OPAQUE
    m.stack.append(m.builder.persistent(m.stack.pop()))


def _frame(m: Machine) -> None:
    nbytes = m.number(_U8)
    if m.frame_end:
        raise FormatError(f"the pickle {m.stream} opens a frame inside another")
    if nbytes > m.size - m.pos:
        raise Ended(f"the pickle {m.stream} announces a frame of {nbytes:,} bytes where {m.size - m.pos:,} are left")
    m.frame_end = m.pos + nbytes
    raise FrameOpened


def _out_of_band(m: Machine) -> None:
    raise FormatError(f"the pickle {m.stream} keeps data in buffers outside of the file")


TABLE: dict[int, _Op] = {code[0]: run for code, run in {
    b"(": _mark, b".": _stop, b"0": _pop, b"1": _pop_mark, b"2": _dup,
    b"F": _text_float, b"I": _text_int, b"J": _integer(_I4), b"K": _integer(_U1), b"L": _text_long, b"M": _integer(_U2),
    b"N": _push(None), b"P": _persistent_text, b"Q": _persistent, b"R": _reduce,
    b"S": _text_string, b"T": _string(_I4), b"U": _string(_U1), b"V": _text_unicode, b"X": _unicode(_U4),
    b"a": _append, b"b": _build, b"c": _global, b"d": _marked_dict, b"}": _empty(dict, CONTAINER), b"e": _appends,
    b"g": _text_get, b"h": _binget, b"i": _inst, b"j": _long_binget, b"l": _marked_list, b"]": _empty(list, CONTAINER),
    b"o": _obj, b"p": _text_put, b"q": _binput, b"r": _long_binput, b"s": _setitem, b"t": _marked_tuple,
    b")": _push(()), b"u": _setitems, b"G": _binfloat,
    b"\x80": _proto, b"\x81": _newobj, b"\x82": _extension(_U1), b"\x83": _extension(_U2), b"\x84": _extension(_I4),
    b"\x85": _tuple(1), b"\x86": _tuple(2), b"\x87": _tuple(3), b"\x88": _push(True), b"\x89": _push(False),
    b"\x8a": _long(_U1), b"\x8b": _long(_I4), b"B": _bytes(_U4), b"C": _bytes(_U1),
    b"\x8c": _unicode(_U1), b"\x8d": _unicode(_U8), b"\x8e": _bytes(_U8), b"\x8f": _empty(set, 4 * CONTAINER),
    b"\x90": _additems, b"\x91": _frozenset, b"\x92": _newobj_ex, b"\x93": _stack_global, b"\x94": _memoize,
    b"\x95": _frame, b"\x96": _bytes(_U8), b"\x97": _out_of_band, b"\x98": _out_of_band,
}.items()}  # fmt: skip
"""What to run for each opcode."""

WEIGHTS_ONLY = frozenset(b"(.abcehjqrstuGJKMNQRUX])}\x80\x81\x85\x86\x87\x88\x89\x8a\x8f")
"""The opcodes that torch's weights-only loader knows: those that protocol 2 takes for plain values."""


def _noted(code: int, run: _Op) -> _Op:
    def noted(m: Machine) -> None:
        m.refuse(f"has the opcode 0x{code:02x}")
        run(m)

    return noted


UNNOTED = dict(TABLE)
"""The same for a pickle of which it is known already that torch's weights-only loader refuses it."""

TABLE.update({code: _noted(code, run) for code, run in TABLE.items() if code not in WEIGHTS_ONLY})

"""Constructors of the standard library and NumPy whose results are kept as plain values; whatever else is an `Opaque`.

Keys are exact (module, name) pairs: a name is never trusted for its module, nor a module for its names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, cast

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.limits import DEFAULT_LIMITS, MIB, Limits
from ckpt_rules.readers.budget import LimitError
from ckpt_rules.readers.pickle.keys import ByteArray, KeyGuard
from ckpt_rules.readers.pickle.stack import Global
from ckpt_rules.readers.scalars import decode_scalar, numpy_dtype

MAX_LETTERS = 1_000

Constructor = Callable[..., object]
"""Called with the builder and the arguments. TypeError: it would not take them."""

_ENCODINGS = frozenset({"latin1", "latin-1", "iso-8859-1", "utf-8", "utf8", "utf-16", "utf-32", "ascii", "cp1252"})


class CantTell(Exception):
    """What a constructor would make of its arguments is not known here; they are kept in an `Opaque`."""


class PlainBuilder:
    """Turns what a pickle calls into inert values.

    known:    what becomes a plain value, by module and name
    must_fit: modules whose functions fail every loader when they are called with what they do not take
    """

    known: Mapping[tuple[str, str], Constructor]
    must_fit = frozenset({"builtins", "collections", "_codecs"})

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.known = CONSTRUCTORS
        self.limits = limits
        self.keys = KeyGuard(limits)

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of a call."""
        if type(function) is not Global:
            if isinstance(function, Opaque):
                return Opaque(function.type, args)
            raise FormatError(f"a {type(function).__name__} is called as if it were a function")
        known = self.known.get((function.module, function.name))
        if known is None:
            return Opaque(str(function), args)
        try:
            return known(self, *args)
        except CantTell:
            return Opaque(str(function), args)
        except TypeError:
            if function.module in self.must_fit:
                raise FormatError(f"{function} is called with arguments that it does not take") from None
            return Opaque(str(function), args)

    def new(self, kind: object, args: tuple[object, ...]) -> object:
        """The inert value of `kind.__new__(kind, *args)`; that of a container takes no note of its arguments."""
        if type(kind) is Global:
            if kind.module in _FUNCTIONS_ONLY:
                raise FormatError(f"{kind} is taken for a class")
            if (kind.module, kind.name) in _FILLED_LATER:
                args = ()
        elif type(kind) is Opaque and isinstance(kind.state, Mapping):
            # What a call returned may be a class; what has attributes of its own by now is an object of one.
            raise FormatError(f"an object of the class {kind.type} is taken for a class")
        return self.build(kind, args)

    def persistent(self, pid: object) -> object:
        """Nothing is kept outside of a plain pickle."""
        raise FormatError("something is kept outside of the pickle")


def sequence(value: object) -> list[object]:
    """What a loop over a value would meet."""
    if isinstance(value, Opaque) and value.type == _RANGE:
        refuse_length(_range_length(value.args), f"{_RANGE}{value.args!r:.60}")
    if isinstance(value, Opaque) or (isinstance(value, str | bytes) and len(value) > MAX_LETTERS):
        raise CantTell
    if type(value) not in (list, tuple, set, frozenset, dict, str, bytes):
        raise TypeError
    return list(value)  # type: ignore[call-overload,no-any-return]


def refuse_length(count: int, what: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """LimitError where something is to be made that is longer than any part of a file that is read."""
    most = limits.structure * MIB
    if count > most:
        raise LimitError.past("structure", f"the pickle makes {count:,} elements of {what}, more than {most:,}")


def _range_length(args: tuple[object, ...]) -> int:
    numbers = [part for part in args if type(part) is int]
    if len(numbers) != len(args) or not 1 <= len(numbers) <= 3 or numbers[2:] == [0]:
        return 0
    # Not len(): that of a range of more than 63 bits is not available.
    start, stop, step = (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1)[:3]
    return max(0, (stop - start + step - (1 if step > 0 else -1)) // step)


def _mapping(builder: PlainBuilder, items: object = ()) -> dict[object, object]:
    if isinstance(items, dict):
        return dict(items)
    pairs = [sequence(pair) for pair in sequence(items)]
    return {builder.keys.check(key): value for key, value in pairs}


def _counter(builder: PlainBuilder, items: object = None) -> dict[object, object]:
    if isinstance(items, dict):
        return dict(items)
    keys = [] if items is None else sequence(items)
    return dict(Counter(map(builder.keys.check, keys)))


def _default_dict(builder: PlainBuilder, _factory: object = None, items: object = ()) -> dict[object, object]:
    return _mapping(builder, items)


def _list(_: PlainBuilder, items: object = (), _limit: object = None) -> list[object]:
    return sequence(items)


def _tuple(_: PlainBuilder, items: object = ()) -> tuple[object, ...]:
    return items if type(items) is tuple else tuple(sequence(items))


def _set(builder: PlainBuilder, items: object = ()) -> set[object]:
    return set(map(builder.keys.check, sequence(items)))


def _frozenset(builder: PlainBuilder, items: object = ()) -> frozenset[object]:
    return frozenset(map(builder.keys.check, sequence(items)))


def _complex(_: PlainBuilder, *parts: object) -> complex:
    if len(parts) == 1 and isinstance(parts[0], str):
        return complex(parts[0])
    if len(parts) > 2 or not all(isinstance(part, int | float | complex) for part in parts):
        raise TypeError
    return complex(*cast("Any", parts))


def _encode(_: PlainBuilder, text: object, encoding: object = "utf-8", errors: object = "strict") -> bytes:
    if type(text) is not str or type(encoding) is not str or encoding not in _ENCODINGS or errors != "strict":
        raise TypeError
    return text.encode(str(encoding))


def _bytes(builder: PlainBuilder, raw: object = b"", encoding: object = None) -> bytes:
    if encoding is not None:
        return _encode(builder, raw, encoding)
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, int) and raw >= 0:  # asks for that many bytes
        refuse_length(raw, "one call of bytes or bytearray", builder.limits)
        raise CantTell
    if isinstance(raw, str):
        raise TypeError
    return bytes(sequence(raw))  # type: ignore[arg-type]


def _bytearray(builder: PlainBuilder, *args: object) -> ByteArray:
    return ByteArray(_bytes(builder, *args))


def _path(_: PlainBuilder, *parts: object) -> str:
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise TypeError
    return "/".join(text.rstrip("/") for text in texts) or "."


def _numpy_scalar(_: PlainBuilder, dtype: object, raw: object) -> object:
    """A NumPy scalar as a number; its dtype keeps the byte order in its state: (version, '<', …)."""
    if not isinstance(dtype, Opaque) or not dtype.args or not isinstance(raw, bytes):
        raise TypeError
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    number = decode_scalar(raw, numpy_dtype(str(dtype.args[0])), big_endian=order == ">")
    if number is None:
        raise TypeError
    return number


def _array(builder: PlainBuilder, *args: object) -> object:
    """What takes memory by its shape, or by its first argument: it is not made here, and refused where it is huge."""
    shape = args[0] if args and isinstance(args[0], tuple) else args
    refuse_length(_product(shape), "one array or storage", builder.limits)
    raise CantTell


def _empty_array(builder: PlainBuilder, *args: object) -> object:
    """The same of a function that takes the class first, and then the shape."""
    refuse_length(_product(args[1] if len(args) > 1 else ()), "one array", builder.limits)
    raise CantTell


def _product(shape: object) -> int:
    sizes = shape if isinstance(shape, tuple) else ()
    return prod(size for size in sizes if type(size) is int and size > 0) if sizes else 0


def _fraction(_: PlainBuilder, *args: object) -> object:
    """A fraction: of `1e999999999` Python computes every digit."""
    exponents = [found[1] for text in args if isinstance(text, str) and (found := _EXPONENT.search(text))]
    if exponents and int(exponents[0][:_MOST_DIGITS]) > _MOST_EXPONENT:
        raise LimitError(f"the pickle makes a number with {exponents[0][:20]} digits")
    raise CantTell


def _reconstruct(_: PlainBuilder, kind: object, _base: object = None, state: object = None) -> Opaque:
    return Opaque(str(kind) if isinstance(kind, Global) else "", () if state is None else (state,))


def _new_object(builder: PlainBuilder, kind: object, *args: object) -> object:
    """`copyreg.__newobj__`: the class comes first."""
    return builder.new(kind, args)


_RANGE = "builtins.range"
_EXPONENT = re.compile(r"[eE]\+?([0-9]+)\s*\Z")
_MOST_EXPONENT, _MOST_DIGITS = 10_000, 20

_FUNCTIONS_ONLY = frozenset({"_codecs", "copyreg", "torch._utils", "torch._tensor", "torch.serialization"})
_FILLED_LATER = frozenset(
    {(module, name) for module, names in {
        "collections": ("OrderedDict", "Counter", "defaultdict", "deque"),
        "builtins": ("dict", "list", "set", "bytearray"),
    }.items() for name in names}
)  # fmt: skip

CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "Counter"): _counter,
    ("collections", "defaultdict"): _default_dict,
    ("collections", "deque"): _list,
    ("builtins", "dict"): _mapping,
    ("builtins", "list"): _list,
    ("builtins", "tuple"): _tuple,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "complex"): _complex,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytearray,
    ("_codecs", "encode"): _encode,
    ("fractions", "Fraction"): _fraction,
    ("numpy", "ndarray"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    **{
        ("torch", f"{dtype}{kind}"): _array
        for kind in ("Storage", "Tensor")
        for dtype in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
    },
    ("torch", "Tensor"): _array,
    ("torch.storage", "TypedStorage"): _array,
    ("torch.storage", "UntypedStorage"): _array,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("copyreg", "__newobj__"): _new_object,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
}

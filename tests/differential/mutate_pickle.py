"""Mutations of a pickle opcode by opcode, so that what comes after the change is still read."""

from __future__ import annotations

import pickletools
import struct
from functools import cache
from random import Random

from tests.differential.mutate_bytes import odd_number

_INTEGERS = {"K": "<B", "M": "<H", "J": "<i"}
_GLOBALS = (
    "collections OrderedDict", "collections Counter", "collections defaultdict", "builtins set", "builtins complex", "builtins dict",
    "builtins bytearray", "builtins list", "builtins frozenset", "_codecs encode", "__builtin__ set", "__builtin__ long", "os system",
    "torch Size", "torch device", "torch Tensor", "torch float32", "torch bfloat16", "torch bits8", "torch uint1", "torch qint8",
    "torch FloatStorage", "torch DoubleStorage", "torch UntypedStorage", "torch.storage UntypedStorage", "torch.storage TypedStorage",
    "torch LongStorage", "torch QInt8Storage", "torch ComplexFloatStorage", "torch.cuda FloatStorage", "torch FloatTensor",
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state", "torch._utils _rebuild_qtensor", "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_nested_tensor", "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor", "torch._utils _rebuild_device_tensor_from_numpy", "torch per_tensor_affine",
    "torch._tensor _rebuild_from_type_v2", "torch.nn.parameter Parameter", "torch.serialization _get_layout", "torch strided",
    "numpy._core.multiarray scalar", "numpy dtype", "pathlib Path", "argparse Namespace", "os", " ",
)  # fmt: skip
_TEXTS = (
    "", "0", "1", "99", "cpu", "cuda:0", "cpu:1", "meta", "mps", "storage", "module", "x", "latin1", "utf-8", "torch.strided",
    "torch.sparse_coo", "é", "\ud800", "../x", "0\0", "data.pkl", "\x00",
)  # fmt: skip
_WHOLE = (
    b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"(", b"t", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"b", b"a", b"e", b"s", b"u",
    b"Q", b".", b"0", b"1", b"2", b"l", b"d", b"o", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94", b"\x97", b"\x98", b"K\x01", b"K\xff",
    b"M\x00\x01", b"J\xff\xff\xff\xff", b"\x8a\x00", b"\x8a\x01\x80", b"\x8a\x09" + b"\xff" * 8 + b"\x7f", b"\x8b\x01\0\0\0\x05", b"h\x00",
    b"h\x05", b"q\x00", b"q\xf0", b"j\0\0\0\0", b"r\0\0\0\0", b"r\xff\xff\xff\xff", b"r\0\x20\0\0", b"X\1\0\0\0a", b"X\0\0\0\0",
    b"X\xff\xff\xff\xff", b"U\x01a", b"U\x01\xff", b"T\1\0\0\0a", b"V\\u0041\n", b"S'a'\n", b"I1\n", b"I01\n", b"I00\n", b"I 1_0\n", b"L5L\n",
    b"F1.5\n", b"Fnan\n", b"F1_0\n", b"p0\n", b"g0\n", b"P0\n", b"i__main__\nX\n", b"B\1\0\0\0a", b"C\1a", b"\x8c\1a", b"\x80\2", b"\x80\3",
    b"\x80\4", b"\x80\xff", b"\x82\1", b"\x95" + bytes(8), b"\x95\4" + bytes(7), b"\x96\1" + bytes(7) + b"a", b"G" + bytes(8),
    b"G\x7f\xf8" + bytes(6),
)  # fmt: skip


@cache
def opcodes(pickle: bytes) -> tuple[bytes, ...]:
    """A sound pickle, cut at its opcodes."""
    starts = [at for _, _, at in pickletools.genops(pickle) if at is not None]
    return tuple(pickle[a:b] for a, b in zip(starts, [*starts[1:], len(pickle)], strict=True))


def mutate_pickle(rng: Random, pickle: bytes, other: bytes) -> bytes:
    """A sound pickle with a few opcodes changed; `other` is a sound one that lends some of its own."""
    ops = list(opcodes(pickle))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if ops:
            rng.choice(_CHANGES)(rng, ops, opcodes(other))
    return b"".join(ops)


def _at(rng: Random, ops: list[bytes]) -> int:
    return rng.randrange(len(ops))


def _drop(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    at = _at(rng, ops)
    del ops[at : at + rng.choice((1, 1, 1, 2, 5))]


def _repeat(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    at = _at(rng, ops)
    ops[at:at] = ops[at : at + rng.choice((1, 1, 2, 8, 30))]


def _swap(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    one, two = _at(rng, ops), _at(rng, ops)
    if rng.random() < 0.5:
        two = min(one + 1, len(ops) - 1)
    ops[one], ops[two] = ops[two], ops[one]


def _insert(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    ops.insert(_at(rng, ops), _any(rng))


def _replace(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    ops[_at(rng, ops)] = _any(rng)


def _lend(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    at, start = _at(rng, ops), rng.randrange(len(other))
    piece = other[start : start + rng.choice((1, 2, 5, 20))]
    ops[at : at + rng.choice((0, len(piece)))] = piece


def _argue(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    """Change the argument of an opcode that has one."""
    able = [i for i, op in enumerate(ops) if chr(op[0]) in "KMJXchqjrUG\x8a"]
    if able:
        at = rng.choice(able)
        ops[at] = _with_argument(rng, ops[at])


def _call(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    """Change what is called: an import becomes another."""
    imports = [i for i, op in enumerate(ops) if op[:1] == b"c"]
    if imports:
        ops[rng.choice(imports)] = _global(rng)


def _wrap(rng: Random, ops: list[bytes], other: tuple[bytes, ...]) -> None:
    """Call something with the value that was just made."""
    at = _at(rng, ops)
    arguments = rng.choice((b"\x85", b"K\x01\x86", b"K\x01N\x87", b"X\x01\0\0\0a\x86", b"]\x86"))
    swapped = b"q\xfe0" if rng.random() < 0.5 else b"r\xf0\x10\0\0"
    fetch = b"h\xfe" if swapped.startswith(b"q") else b"j\xf0\x10\0\0"
    ops[at:at] = [swapped, _global(rng), fetch, arguments, rng.choice((b"R", b"R", b"\x81"))]


def _any(rng: Random) -> bytes:
    kind = rng.random()
    return _global(rng) if kind < 0.15 else _text(rng) if kind < 0.3 else rng.choice(_WHOLE)


def _global(rng: Random) -> bytes:
    module, _, name = rng.choice(_GLOBALS).partition(" ")
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(rng: Random) -> bytes:
    raw = rng.choice(_TEXTS).encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _with_argument(rng: Random, op: bytes) -> bytes:
    code = chr(op[0])
    if code == "c":
        return _global(rng)
    if code in "XU":
        return _text(rng) if rng.random() < 0.6 else _number(rng, len(op))
    if code == "G":
        return b"G" + rng.choice((bytes(8), b"\x7f\xf0" + bytes(6), b"\xff\xf8" + bytes(6), rng.randbytes(8)))
    if code in _INTEGERS:
        return _number(rng, odd_number(rng, struct.unpack_from(_INTEGERS[code], op, 1)[0]))
    raw = bytearray(op)
    at = rng.randrange(1, len(raw))
    raw[at] = (raw[at] + rng.choice((-1, 1, 1, 2, 7, 128))) % 256
    return bytes(raw)


def _number(rng: Random, value: int) -> bytes:
    """An opcode for a whole number, the smallest that holds it or `LONG1`."""
    if 0 <= value < 256 and rng.random() < 0.9:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


_CHANGES = (
    _drop,
    _repeat,
    _swap,
    _insert,
    _insert,
    _replace,
    _replace,
    _lend,
    _argue,
    _argue,
    _argue,
    _argue,
    _call,
    _wrap,
)

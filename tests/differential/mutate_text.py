"""Mutations of JSON: of its text, and of the header of a safetensors file field by field."""

from __future__ import annotations

import json
import struct
from random import Random
from typing import Any

from tests.differential.mutate_bytes import odd_number

_LENGTH = struct.Struct("<Q")
_ODD_NUMBERS = (
    "-0", "-1", "0.0", "1.0", "1e0", "1E2", "00", "01", "+1", "1_0", " 1 ", "0x1", "18446744073709551615",
    "18446744073709551616", "9223372036854775808", "1e400", "NaN", "Infinity", "-Infinity", "null", "true", '"1"', "[]", "[1]", "{}",
    "9" * 400, "9" * 4400, "\u0661", "1.", ".5", "1e", "-", "1e-400", "0e1", "-0.0",
)  # fmt: skip
_ODD_TEXTS = (
    '""', '"\\u0041"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\udc00\\ud800"', '"\\x"', '"\\/"', '"\t"', '"\x00"', '"\x7f"', '"\\u00"', "'a'",
    '"__metadata__"', '"\\u005f_metadata__"', '"\u2028"', '"a', '"\ufeff"', '"\\uD83D"', '"\\ud83dx"', '"F32"', '"f32"', "null", "1",
)  # fmt: skip
_ODD_SPACE = (" ", "\t", "\r\n", "\x0b", "\x0c", "\xa0", "\u2003", "\0", "\ufeff", "//x\n", "/**/", ",", "  " * 40)
_TOKENS = (
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "null",
    "true",
    "false",
    "nul",
    "[[",
    "{}",
    "[]",
    '{"a":1}',
    '{"F32":null}',
    "\\",
)
_DTYPES = (
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16",
    "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64", "", "f32", "F32 ", "F128", "C128", "BF16\u0000",
)  # fmt: skip


def mutate_text(rng: Random, data: bytes) -> bytes:
    """JSON with some tokens changed, as text."""
    text = data.decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            text = text[:at] + rng.choice(_TOKENS) + text[at:]
        elif kind == 1:
            text = text[:at] + rng.choice(_ODD_SPACE) + text[at:]
        elif kind == 2:
            text = _replace(rng, text, "0123456789", _ODD_NUMBERS)
        elif kind == 3:
            text = _replace_string(rng, text)
        elif kind == 4:
            text = text[:at] + text[at + rng.choice((1, 1, 2, 5)) :]
        else:
            depth = rng.choice((5, 126, 127, 128, 200, 260, 1100))
            text = (
                text[:at]
                + rng.choice(("[", '{"a":')) * depth
                + rng.choice(("", "]" * depth, "1" + "}" * depth))
                + text[at:]
            )
    return text.encode("utf-8", "surrogatepass")


def mutate_header(rng: Random, data: bytes) -> bytes:
    """A safetensors file with some fields of its header changed; its length is that of the new header, mostly."""
    (length,) = _LENGTH.unpack_from(data)
    raw, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.35:
        header = mutate_text(rng, raw)
    else:
        entries = json.loads(raw, object_pairs_hook=_Pairs)
        for _ in range(rng.choice((1, 1, 2, 3))):
            rng.choice(_ENTRY_CHANGES)(rng, entries)
        separators = rng.choice(((",", ":"), (",", ":"), (", ", ": ")))
        header = _dump(entries, separators, ascii_only=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    header += rng.choice((b"", b"", b" " * rng.randrange(9), b" " * 5000, b"\0", b"\n", b"x", b"{}"))
    body = rng.choice((body, body, body, body[:-1], body + b"\0", body + body))
    claimed = len(header)
    if rng.random() < 0.1:
        claimed = odd_number(rng, claimed) % (1 << 64)
    return _LENGTH.pack(claimed) + header + body


class _Pairs(list[Any]):
    """An object of JSON as a list of [key, value], so that a key may be there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__([key, value] for key, value in pairs)


class _Raw(str):
    """JSON text that is written as it is."""

    __slots__ = ()


def _dump(value: object, separators: tuple[str, str], *, ascii_only: bool) -> str:
    comma, colon = separators
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, _Pairs):
        parts = (
            f"{_dump(k, separators, ascii_only=ascii_only)}{colon}{_dump(v, separators, ascii_only=ascii_only)}"
            for k, v in value
        )
        return "{" + comma.join(parts) + "}"
    if isinstance(value, list):
        return "[" + comma.join(_dump(v, separators, ascii_only=ascii_only) for v in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def _tensors(entries: _Pairs) -> list[Any]:
    return [pair for pair in entries if isinstance(pair[1], _Pairs) and pair[0] != "__metadata__"]


def _fields(rng: Random, entries: _Pairs) -> _Pairs:
    tensors = _tensors(entries)
    return rng.choice(tensors)[1] if tensors else _Pairs([])


def _change_number(rng: Random, entries: _Pairs) -> None:
    """Change one number of a shape or of offsets."""
    for pair in _fields(rng, entries):
        if type(pair[1]) is list and pair[1] and rng.random() < 0.6:
            at = rng.randrange(len(pair[1]))
            old = pair[1][at]
            pair[1][at] = (
                odd_number(rng, old) if type(old) is int and rng.random() < 0.6 else _Raw(rng.choice(_ODD_NUMBERS))
            )


def _change_shape(rng: Random, entries: _Pairs) -> None:
    for pair in _fields(rng, entries):
        if pair[0] == "shape" and type(pair[1]) is list:
            sizes = pair[1]
            choices = (
                [*sizes, 1],
                [1, *sizes],
                sizes[::-1],
                [0, 2**63],
                [2**32, 2**32],
                [2**32, 2**32, 0],
                [],
                [1] * 70,
                sizes[1:],
            )
            pair[1] = list(rng.choice(choices))


def _change_list(rng: Random, entries: _Pairs) -> None:
    for pair in _fields(rng, entries):
        if type(pair[1]) is list and rng.random() < 0.4:
            pair[1] = rng.choice(
                (pair[1] * 2, pair[1][:1], pair[1][::-1], None, _Raw(rng.choice(_ODD_NUMBERS)), [None])
            )


def _change_dtype(rng: Random, entries: _Pairs) -> None:
    for pair in _fields(rng, entries):
        if pair[0] == "dtype":
            odd = (
                _Raw(rng.choice(_ODD_TEXTS)),
                _Pairs([(str(pair[1]), None)]),
                _Pairs([(str(pair[1]), 1)]),
                [pair[1]],
                None,
            )
            pair[1] = rng.choice((*[rng.choice(_DTYPES)] * 4, *odd))


def _change_keys(rng: Random, entries: _Pairs) -> None:
    """Drop, repeat, rename or add a field of a tensor or of the header."""
    target = rng.choice((entries, _fields(rng, entries)))
    if not target:
        target.append(["x", _Pairs([("dtype", "F32"), ("shape", [0]), ("data_offsets", [0, 0])])])
        return
    at = rng.randrange(len(target))
    kind = rng.randrange(6)
    if kind == 0:
        del target[at]
    elif kind == 1:
        target.insert(rng.randrange(len(target) + 1), list(target[at]))
    elif kind == 2:
        target[at][0] = rng.choice((_Raw(rng.choice(_ODD_TEXTS)), "__metadata__", "shape", "dtype", target[0][0]))
    elif kind == 3:
        target.append([rng.choice(("extra", "", "shape")), _Raw(rng.choice((*_ODD_NUMBERS, *_ODD_TEXTS)))])
    elif kind == 4:
        rng.shuffle(target)
    else:
        target[at][1] = rng.choice((None, [], _Pairs([]), 1, "x", _listed(target[at][1])))


def _listed(value: object) -> object:
    """serde's other way to write a structure: its values in their order."""
    return [v for _, v in value] if isinstance(value, _Pairs) else [value]


def _change_metadata(rng: Random, entries: _Pairs) -> None:
    odd = _Pairs([("a", "b"), (rng.choice(("a", "c")), _Raw(rng.choice((*_ODD_TEXTS, *_ODD_NUMBERS))))])
    entries.insert(
        rng.randrange(len(entries) + 1), ["__metadata__", rng.choice((odd, odd, _Pairs([]), None, [], "x", 1))]
    )


_ENTRY_CHANGES = (
    _change_number,
    _change_number,
    _change_shape,
    _change_list,
    _change_dtype,
    _change_keys,
    _change_keys,
    _change_metadata,
)


def _replace(rng: Random, text: str, alphabet: str, replacements: tuple[str, ...]) -> str:
    """Replace one run of characters of an alphabet."""
    at = rng.randrange(len(text) + 1)
    start = next((i for i in range(at, len(text)) if text[i] in alphabet), None)
    if start is None:
        return text
    end = next((i for i in range(start, len(text)) if text[i] not in alphabet), len(text))
    return text[:start] + rng.choice(replacements) + text[end:]


def _replace_string(rng: Random, text: str) -> str:
    start = text.find('"', rng.randrange(len(text) + 1))
    end = text.find('"', start + 1)
    return text if start < 0 or end < 0 else text[:start] + rng.choice(_ODD_TEXTS) + text[end + 1 :]

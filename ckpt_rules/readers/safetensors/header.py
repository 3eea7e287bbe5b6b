"""The entries of a safetensors header: names, dtypes, shapes and ranges.

The library writes every entry in one form, and a regular expression reads that. Whatever else an entry may look like
goes through `strict_json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeGuard, cast

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import DTYPE_BITS, TensorInfo
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import MAX_PROBLEMS, ProblemLog
from ckpt_rules.readers.json.strict import StrictJsonError, scan_member
from ckpt_rules.readers.safetensors.header_text import HeaderText

TENSOR_NBYTES = 400  # what a tensor takes in memory besides its name, with what rules note of it
MAX_DESCRIPTIONS = 10_000
MAX_PADDING = 4_096
_UNSOUND = -(10**19)  # less than any difference of two offsets of 19 digits
HIDDEN = "hidden"
"""Code of what the library accepts and no tensor needs."""
U64 = 1 << 64

DTYPES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2", "F6_E2M3": "float6_e2m3", "F6_E3M2": "float6_e3m2",
    "U8": "uint8", "I8": "int8",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16",
    "I32": "int32", "U32": "uint32", "F32": "float32",
    "C64": "complex64", "F64": "float64", "I64": "int64", "U64": "uint64",
}  # fmt: skip
"""torch's name for each dtype of the format."""

_BITS = {theirs: DTYPE_BITS[ours] for theirs, ours in DTYPES.items()}

_USUAL = re.compile(
    r',"(?!__metadata__")([^"\\\x00-\x1f]*)":'
    r'\{("dtype":"[A-Z0-9_]+","shape":\[[0-9,]*\],"data_offsets":\[)(0|[1-9][0-9]{0,18}),(0|[1-9][0-9]{0,18})\]\}'
)
_FIELDS = ("dtype", "shape", "data_offsets")
_WHOLE = "whole numbers from 0 to 2^64 - 1"

_new_tensor = cast("Callable[[tuple[object, ...]], TensorInfo]", partial(tuple.__new__, TensorInfo))


class Span(NamedTuple):
    """Where one tensor lies, in bytes after the header."""

    begin: int
    end: int
    name: str


class Shape(NamedTuple):
    """A shape and its number of elements, -1 where the library's 64-bit product overflows."""

    sizes: tuple[int, ...]
    numel: int


class HeaderParser:
    """Parses one header.

    tensors, metadata: what was valid
    in_order:   whether each tensor begins where the one before it in the header ends
    last_end:   where the tensor that comes last in the header ends, in bytes after the header
    incomplete: whether a tensor's range is unknown, so that nothing can be said of what the ranges should cover
    """

    def __init__(self, text: HeaderText, data_start: int, log: ProblemLog, budget: Budget) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, str] = {}
        self.in_order = True
        self.last_end = 0
        self.incomplete = False
        self._text = text
        self._data_start = data_start
        self._log = log
        self._budget = budget
        self._most = budget.room // TENSOR_NBYTES
        self._saw_metadata = False
        self._misfits: dict[str, tuple[Span, str, int | None]] = {}
        self._known: dict[str, tuple[str, tuple[int, ...], int]] = {}

    def spans(self) -> list[Span]:
        """The range of every tensor, by where it begins; those of the wrong length included."""
        found = [span for span, _, _ in self._misfits.values()]
        for name, tensor in self.tensors.items():
            begin = cast("int", tensor.offset) - self._data_start
            found.append(Span(begin, begin + tensor.nbytes, name))
        return sorted(found)

    def parse(self) -> None:
        """Read the whole header; Damage where its JSON breaks off."""
        text = self._text
        text.expect("{")
        if text.peek() != "}":
            self._parse_entry()
            self._parse_usual()
            while text.peek() == ",":
                text.pos += 1
                self._parse_entry()
                self._parse_usual()
        text.expect("}")
        padding = self._data_start - text.byte()
        if padding > MAX_PADDING and not text.peek():
            message = f"{padding:,} bytes of white space follow the header's JSON"
            self._log.add(HIDDEN, message, self._data_start - padding, fatal=False)
        if rest := text.peek():
            text.fail(f"{rest!r} follows the brace that closes it")
        for span, message, at in self._misfits.values():
            self._log.add("offsets", message, at, span.name)
            self.incomplete = self.incomplete or span.begin > span.end
        self._budget.charge(TENSOR_NBYTES * len(self.tensors), f"a header of {len(self.tensors):,} tensors")

    def _parse_entry(self) -> None:
        """Read one entry, written in any way."""
        text = self._text
        text.peek()
        while True:
            try:
                name, value, end = scan_member(text.text, text.pos)
                break
            except StrictJsonError as error:
                if not text.grow():
                    text.fail(error.reason, error.pos)
        self._add_any(name, value)
        text.pos = end

    def _parse_usual(self) -> None:
        """Read the sound entries that follow in the library's own form: nearly always all of them."""
        text, pos, begin = self._text.text, self._text.pos, self.last_end
        match, tensors, known, data_start = _USUAL.match, self.tensors, self._known, self._data_start
        misfits = self._misfits
        while found := match(text, pos):
            name, described, first, last = found.groups()
            dtype, sizes, nbytes = known.get(described) or self._learn(described)
            start, end = int(first), int(last)
            if end - start != nbytes or name in tensors or name in misfits or len(tensors) >= self._most:
                break
            if start != begin:
                self.in_order = False
            tensors[name] = _new_tensor((dtype, sizes, nbytes, data_start + start, None, None, None, 0, None))
            begin, pos = end, found.end()
        self._text.pos, self.last_end = pos, begin

    def _learn(self, described: str) -> tuple[str, tuple[int, ...], int]:
        """The dtype, shape and bytes of a description that many tensors share; `_UNSOUND` bytes where it is not sound."""
        try:
            _, fields, _ = scan_member(f'"": {{{described}0,0]}}}}', 0)
        except StrictJsonError:
            return ("", (), _UNSOUND)
        (_, dtype), (_, sizes), _ = cast("Sequence[tuple[str, Any]]", fields)
        bits = _shape(sizes).numel * _BITS[dtype] if dtype in _BITS and _are_sizes(sizes) else -1
        if len(self._known) > MAX_DESCRIPTIONS:
            self._known.clear()
        answer = (DTYPES.get(dtype, ""), tuple(sizes), bits // 8 if bits >= 0 and bits % 8 == 0 else _UNSOUND)
        self._known[described] = answer
        return answer

    def _add(self, name: str, dtype: str, shape: Shape, begin: int, end: int) -> None:
        sizes, numel = shape
        bits = _BITS.get(dtype)
        if begin != self.last_end or name in self.tensors or name in self._misfits:
            self.in_order = False
            if name in self.tensors or name in self._misfits:
                self._log.add(
                    HIDDEN, f"the header lists '{name}' twice; loaders take the last", None, name, fatal=False
                )
            self.tensors.pop(name, None)  # the last of several entries of one name counts, in the library as here
            self._misfits.pop(name, None)
        self.last_end = end
        if bits is None:
            self._reject("dtype", f"tensor '{name}' has the dtype '{dtype:.40}', which safetensors does not know", name)
        elif numel * bits == (end - begin) * 8 and numel >= 0:
            fields = (DTYPES[dtype], sizes, end - begin, self._data_start + begin, None, None, None, 0, None)
            self.tensors[name] = _new_tensor(fields)
        else:
            few = len(self._misfits) < MAX_PROBLEMS
            message = _misfit(name, dtype, shape, begin, end) if few else ""
            self._misfits[name] = (Span(begin, end, name), message, self._text.byte() if few else None)
        if len(self.tensors) + len(self._misfits) > self._most:
            raise self._budget.overdrawn(f"a header of more than {self._most:,} tensors")

    def _add_any(self, name: str, value: object) -> None:
        """Add an entry that is not written as the library writes it."""
        if name == "__metadata__":
            self._add_metadata(value)
            return
        try:
            dtype, shape, offsets = _fields(value)
        except FormatError as error:
            self._reject("header-json", f"tensor '{name}' {error.reason}", name)
            return
        if isinstance(value, tuple) and len(value) > len(_FIELDS):
            others = ", ".join(f"'{key}'" for key, _ in value if key not in _FIELDS)
            self._log.add(HIDDEN, f"tensor '{name}' has further fields: {others:.80}", None, name, fatal=False)
        if isinstance(dtype, tuple) and len(dtype) == 1 and dtype[0][1] is None:
            dtype = dtype[0][0]  # serde's other way to write a name, {"F32": null}
        if not isinstance(dtype, str):
            self._reject("dtype", f"tensor '{name}' has no dtype by name but {_brief(dtype)}", name)
        elif not _are_sizes(shape):
            self._reject("header-json", f"tensor '{name}' has the shape {_brief(shape)}; {_WHOLE} were expected", name)
        elif not _are_sizes(offsets) or len(offsets) != len(("begin", "end")):
            self._reject(
                "offsets", f"tensor '{name}' has the data_offsets {_brief(offsets)}; two {_WHOLE} were expected", name
            )
        else:
            self._add(name, dtype, _shape(shape), *offsets)

    def _add_metadata(self, value: object) -> None:
        if self._saw_metadata:
            self._log.add("metadata", "__metadata__ stands in the header twice", self._text.byte())
        self._saw_metadata = True
        if not isinstance(value, tuple) and value is not None:
            self._log.add("metadata", f"__metadata__ is {_brief(value)}, not an object", self._text.byte())
            return
        for key, text in value or ():
            if isinstance(text, str):
                self.metadata[key] = text
            else:
                message = f"the value of '{key}' in __metadata__ is {_brief(text)}; only strings are allowed"
                self._log.add("metadata", message, self._text.byte())

    def _reject(self, code: str, message: str, name: str) -> None:
        """Note an entry that the library refuses whatever comes after it."""
        at = self._text.byte() if len(self._log) < MAX_PROBLEMS else None
        self._log.add(code, message, at, name)
        self.incomplete = True


def _fields(value: object) -> Sequence[Any]:
    """The three fields of an entry; FormatError where one is absent or there twice."""
    if isinstance(value, list) and len(value) == len(_FIELDS):
        return value  # serde's other way to write a structure
    if not isinstance(value, tuple):
        raise FormatError(f"is described by {_brief(value)}, not by an object")
    keys = [key for key, _ in value]
    for field in _FIELDS:
        if keys.count(field) != 1:
            raise FormatError(f"has {keys.count(field) or 'no'} fields '{field}' where one was expected")
    fields = dict(value)
    return [fields[field] for field in _FIELDS]


def _shape(sizes: Sequence[int]) -> Shape:
    numel = 1
    for size in sizes:
        numel *= size
        if numel >= U64:
            return Shape(tuple(sizes), -1)
    return Shape(tuple(sizes), numel)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < U64 for item in value)


def _misfit(name: str, dtype: str, shape: Shape, begin: int, end: int) -> str:
    sizes, numel = list(shape.sizes), shape.numel
    if begin > end:
        return f"tensor '{name}' ends at data offset {end:,}, before it begins at {begin:,}"
    if numel < 0:
        return f"tensor '{name}' has the shape {_brief(sizes)}, more elements than fit in 64 bits"
    bits = numel * _BITS[dtype]
    if bits % 8:
        return f"tensor '{name}' ends inside a byte: {dtype} {_brief(sizes)} takes {bits:,} bits"
    return f"tensor '{name}' takes {bits // 8:,} bytes as {dtype} {_brief(sizes)}, but its data_offsets {begin:,} to {end:,} span {end - begin:,}"


def _brief(value: object) -> str:
    """A value of the header in a message, shortened."""
    kinds: dict[type, str] = {
        tuple: "an object",
        str: f"the text {value!r:.60}",
        type(None): "null",
        bool: str(value).lower(),
    }
    return kinds.get(type(value), f"{value!s:.60}")

"""The header of a safetensors file: eight bytes of length, JSON, then the tensors' bytes without a gap.

Valid is what the safetensors library 0.8 takes: source `safetensors/src/tensor.rs`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

from ckpt_rules.facts.tensors import DTYPE_BITS, ReadProblem, SafetensorsFile, TensorInfo
from ckpt_rules.storage import Source

MAX_HEADER_NBYTES = 100_000_000
MAX_DEPTH = 128
_LENGTH_NBYTES = 8
_MAX_U64 = (1 << 64) - 1

DTYPES: Mapping[str, str] = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F6_E2M3": "float6_e2m3", "F6_E3M2": "float6_e3m2", "F4": "float4_e2m1fn_x2",
}  # fmt: skip
"""torch's name of each dtype that the format knows."""


class _Fault(Exception):
    """The header as a whole can't be used."""

    def __init__(self, code: str, message: str, offset: int) -> None:
        self.problem = ReadProblem(code, message, offset)


def read_safetensors(source: Source, path: str) -> SafetensorsFile:
    """The header; what is valid in it is returned whatever else is wrong."""
    try:
        nbytes = _header_nbytes(source)
        header = _parse(source.read(_LENGTH_NBYTES, nbytes))
    except _Fault as fault:
        return SafetensorsFile(path, source.size, {}, {}, 0, (fault.problem,))
    metadata, problems = _metadata(header.pop("__metadata__", None))
    start = _LENGTH_NBYTES + nbytes
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        wrong = _entry(entry, start, name, tensors, spans)
        if wrong:
            problems.append(ReadProblem(wrong[0], f"the tensor '{name}' {wrong[1]}", where=name))
    problems += _coverage(spans, start, source.size, whole=not problems)
    return SafetensorsFile(path, source.size, tensors, metadata, nbytes, tuple(problems))


def _header_nbytes(source: Source) -> int:
    if source.size < _LENGTH_NBYTES:
        raise _Fault(
            "cut-short", f"the file has {source.size} bytes, fewer than the 8 that hold the header's length", 0
        )
    nbytes = int.from_bytes(source.read(0, _LENGTH_NBYTES), "little")
    if nbytes > MAX_HEADER_NBYTES:
        message = f"the header claims {nbytes:,} bytes, more than the {MAX_HEADER_NBYTES:,} that the format allows"
        raise _Fault("header-length", message, 0)
    if _LENGTH_NBYTES + nbytes > source.size:
        message = f"the header claims {nbytes:,} bytes, and the file has only {source.size - _LENGTH_NBYTES:,} after its length"
        raise _Fault("cut-short", message, 0)
    return nbytes


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _Fault("header-json", f"the header is not UTF-8 at byte {8 + error.start:,}", 8 + error.start) from None
    del raw
    try:
        header = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        at = _LENGTH_NBYTES + len(text[: error.pos].encode())
        raise _Fault(
            "header-json", f"the header is no JSON at byte {at:,}: {error.msg[0].lower()}{error.msg[1:]}", at
        ) from None
    except (ValueError, RecursionError) as error:
        raise _Fault("header-json", f"the header is no JSON that the format allows: {error}", _LENGTH_NBYTES) from None
    if not isinstance(header, dict):
        raise _Fault("header-json", f"the header is a JSON {_kind(header)}, not an object", _LENGTH_NBYTES)
    return header


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON number")


def _kind(value: object) -> str:
    return {dict: "object", list: "array", str: "string", type(None): "null", bool: "boolean"}.get(
        type(value), "number"
    )


def _metadata(value: object) -> tuple[dict[str, str], list[ReadProblem]]:
    if value is None:
        return {}, []
    if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return value, []
    what = (
        "its values are not all strings" if isinstance(value, dict) else f"it is a JSON {_kind(value)}, not an object"
    )
    return {}, [ReadProblem("metadata", f"`__metadata__` can't be read: {what}", _LENGTH_NBYTES, "__metadata__")]


def _entry(
    entry: object, start: int, name: str, tensors: dict[str, TensorInfo], spans: list[tuple[int, int, str]]
) -> tuple[str, str] | None:
    """Add one tensor; or the code and the sentence of what is wrong with it."""
    if not isinstance(entry, dict):
        return "header-json", f"is described by a JSON {_kind(entry)}, not an object"
    shape, offsets, name_of_dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    dtype = DTYPES.get(name_of_dtype) if isinstance(name_of_dtype, str) else None
    if dtype is None:
        return "dtype", f"has the unknown dtype {name_of_dtype!r}"
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n <= _MAX_U64 for n in shape):
        return "offsets", f"has a shape of {str(shape)[:80]}, which is no list of sizes"
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int and 0 <= n <= _MAX_U64 for n in offsets)
    ):
        return "offsets", f"has data_offsets of {str(offsets)[:80]}, which are not two byte numbers"
    begin, end = offsets
    spans.append((begin, end, name))
    nbits = prod(shape) * DTYPE_BITS[dtype]
    if nbits > _MAX_U64:
        return "offsets", f"of shape {shape} has more elements than any file can hold"
    if nbits % 8:
        return "offsets", f"of dtype {name_of_dtype} and shape {shape} takes {nbits:,} bits, which are no whole bytes"
    if end - begin != nbits // 8:
        return (
            "size",
            f"of dtype {name_of_dtype} and shape {shape} takes {nbits // 8:,} bytes, and its offsets span {end - begin:,}",
        )
    tensors[name] = TensorInfo(dtype, tuple(shape), nbits // 8, start + begin)
    return None


def _coverage(spans: list[tuple[int, int, str]], start: int, size: int, *, whole: bool) -> list[ReadProblem]:
    """Tensors must follow one another without gap or overlap, and end where the file ends."""
    problems, at, before = [], 0, "the header"
    for begin, end, name in sorted(spans):
        if begin > at and whole:
            message = f"{begin - at:,} bytes between {before} and the tensor '{name}' belong to no tensor"
            problems.append(ReadProblem("hole", message, start + at, name))
        elif begin < at:
            message = (
                f"the tensor '{name}' starts at byte {start + begin:,}, inside {before}, which ends at {start + at:,}"
            )
            problems.append(ReadProblem("overlap", message, start + begin, name))
        at, before = max(at, end), f"the tensor '{name}'"
    expected = start + at
    if size < expected:
        message = f"the file has {size:,} bytes and its header describes {expected:,}: it was cut short by {expected - size:,}"
        problems.append(ReadProblem("cut-short", message, size))
    elif size > expected and (whole or spans):
        message = f"the file has {size:,} bytes and its header describes {expected:,}: {size - expected:,} bytes belong to no tensor"
        problems.append(ReadProblem("size", message, expected))
    return problems

"""Single numbers out of their bytes, as torch and NumPy store them."""

from __future__ import annotations

import struct

_FORMATS = {
    "float64": "d", "float32": "f", "float16": "e", "bool": "?",
    "int64": "q", "int32": "i", "int16": "h", "int8": "b", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip
_NUMPY_KINDS = {"f": "float", "i": "int", "u": "uint"}


def decode_scalar(raw: bytes, dtype: str, *, big_endian: bool = False) -> float | int | bool | None:
    """The number of a dtype (torch's name) that `raw` holds; None where it is too short or the dtype is not a real number."""
    if dtype == "bfloat16":  # the upper half of a float32
        raw, dtype = (raw + b"\0\0" if big_endian else b"\0\0" + raw), "float32"
    layout = _FORMATS.get(dtype)
    if layout is None or len(raw) != struct.calcsize(layout):
        return None
    number: float | int | bool = struct.unpack((">" if big_endian else "<") + layout, raw)[0]
    return number


def numpy_dtype(code: str) -> str:
    """The dtype of a NumPy type code, by torch's name: `f8` is `float64`; '' where there is none."""
    if code == "b1":
        return "bool"
    kind, nbytes = _NUMPY_KINDS.get(code[:1]), code[1:]
    return f"{kind}{int(nbytes) * 8}" if kind and nbytes.isdecimal() and len(nbytes) == 1 else ""

"""What the values of a chunk of memory are, by dtype.

Floating-point numbers with a sign bit are compared as the integers that their bits are: as signed ones the largest is the
largest positive number, as unsigned ones the largest is the most negative. Two reductions over integers, several times
faster than any test for NaN, thus give the range of the values and whether one of them is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ckpt_rules.facts.values import Measure, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

COMPLEX = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_INTEGERS = {
    **{f"{sign}int{bits}": f"{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "u1", "qint8": "i1", "quint8": "u1", "qint32": "i4",
}  # fmt: skip
INTEGER_DTYPES = frozenset(_INTEGERS)


class _Layout(NamedTuple):
    """How a dtype with a sign bit is built.

    nbytes:  of one element
    highest: the bits of the largest finite number
    values:  codes -> float64
    """

    nbytes: int
    highest: int
    values: Callable[[Array], Array]

    @property
    def sign(self) -> int:
        """The sign bit."""
        return 1 << (8 * self.nbytes - 1)


def _viewed(dtype: str) -> Callable[[Array], Array]:
    def values(codes: Array) -> Array:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            return codes.view(dtype).astype("f8")

    return values


def _bfloat16(codes: Array) -> Array:
    wide = codes.astype("u4")
    return _viewed("f4")(np.left_shift(wide, 16, out=wide))


def _float8(exponent_bits: int, bias: int, *, top_is_finite: bool) -> Array:
    """The values of the codes 0 to 255 of a dtype with a sign, exponent and mantissa.

    top_is_finite: whether the highest exponent holds numbers, and NaN only where all other bits are set
    """
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(128)
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    normal = (1 + fraction) * np.exp2(exponent - float(bias))
    positive = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), normal)
    if top_is_finite:
        positive[127] = math.nan
    else:
        highest = exponent == (1 << exponent_bits) - 1
        positive[highest] = np.where(mantissa[highest] == 0, math.inf, math.nan)
    return np.concatenate([positive, -positive])


def _looked_up(table: Array) -> Callable[[Array], Array]:
    return lambda codes: np.take(table, codes)


@cache
def _signed() -> dict[str, _Layout]:
    return {
        "float64": _Layout(8, 0x7FEF_FFFF_FFFF_FFFF, _viewed("f8")),
        "float32": _Layout(4, 0x7F7F_FFFF, _viewed("f4")),
        "float16": _Layout(2, 0x7BFF, _viewed("f2")),
        "bfloat16": _Layout(2, 0x7F7F, _bfloat16),
        "float8_e5m2": _Layout(1, 0x7B, _looked_up(_float8(5, 15, top_is_finite=False))),
        "float8_e4m3fn": _Layout(1, 0x7E, _looked_up(_float8(4, 7, top_is_finite=True))),
    }


@cache
def _tables() -> dict[str, Array]:
    """The values of the codes 0 to 255 of dtypes whose bits do not sort like their values."""
    unsigned_zero = {}
    for name, exponent_bits, bias in (("float8_e4m3fnuz", 4, 8), ("float8_e5m2fnuz", 5, 16)):
        mantissa_bits = 7 - exponent_bits
        table = _float8(exponent_bits, bias, top_is_finite=True)
        top = (2 - 2.0**-mantissa_bits) * 2.0 ** ((1 << exponent_bits) - 1 - bias)
        table[127], table[128], table[255] = top, math.nan, -top
        unsigned_zero[name] = table
    scale = np.exp2(np.arange(256) - 127.0)
    scale[255] = math.nan
    return {**unsigned_zero, "float8_e8m0fnu": scale}


def itemsize(dtype: str) -> int | None:
    """Bytes of one value; None for a dtype whose values are not looked at."""
    part = COMPLEX.get(dtype, dtype)
    if part in _signed():
        return _signed()[part].nbytes
    if part in _tables():
        return 1
    return int(_INTEGERS[part][1:]) if part in _INTEGERS else None


def measure(raw: memoryview, dtype: str, wanted: Measure, *, big_endian: bool = False) -> Values:
    """The values of whole elements of a dtype that `itemsize` knows; without a fingerprint."""
    part = COMPLEX.get(dtype, dtype)
    if part in _signed():
        return _floats(_array(raw, f"u{_signed()[part].nbytes}", big_endian=big_endian), _signed()[part], wanted)
    if part in _tables():
        return _tabled(_array(raw, "u1"), _tables()[part], wanted)
    return _integers(_array(raw, _INTEGERS[part], big_endian=big_endian), wanted)


def numbers(raw: memoryview, dtype: str, *, big_endian: bool = False) -> Array:
    """The values of whole elements of a dtype that `itemsize` knows: whole numbers as such, all others as float64."""
    part = COMPLEX.get(dtype, dtype)
    if part in _signed():
        return _signed()[part].values(_array(raw, f"u{_signed()[part].nbytes}", big_endian=big_endian))
    if part in _tables():
        return np.take(_tables()[part], _array(raw, "u1"))
    return _array(raw, _INTEGERS[part], big_endian=big_endian)


def _array(raw: memoryview, dtype: str, *, big_endian: bool = False) -> Array:
    array = np.frombuffer(raw, dtype)
    if big_endian:
        return array.byteswap()
    return array if array.flags.aligned else array.copy()


def _floats(codes: Array, layout: _Layout, wanted: Measure) -> Values:
    found = Values(codes.size)
    if not codes.size:
        return found
    signed = codes.view(f"i{layout.nbytes}")
    largest, most_negative = int(signed.max()), int(codes.max())
    whole = largest <= layout.highest and most_negative <= layout.highest + layout.sign
    finite = codes
    if not whole:
        found, finite = _without_odd(codes, layout)
    if Measure.RANGE in wanted and finite.size:
        if not whole:
            largest, most_negative = int(finite.view(signed.dtype).max()), int(finite.max())
        smallest, greatest = _range(finite, layout, largest, most_negative)
        found = found._replace(smallest=smallest, largest=greatest)
    if Measure.MOMENTS in wanted:
        total, squares = _moments(layout.values(finite))
        found = found._replace(total=total, squares=squares)
    if Measure.ZEROS in wanted:
        found = found._replace(zeros=codes.size - int(np.count_nonzero(codes << 1)))
    return found


def _range(codes: Array, layout: _Layout, largest: int, most_negative: int) -> tuple[float, float]:
    """The smallest and the largest of finite values, the signed and unsigned maxima of whose bits are given."""
    if largest < 0:  # every number has the sign bit: the one with the fewest bits is the largest
        largest = int(codes.min())
    smallest = most_negative if most_negative & layout.sign else int(codes.min())
    ends = layout.values(np.array([smallest, largest], codes.dtype))
    return float(ends[0]), float(ends[1])


def _without_odd(codes: Array, layout: _Layout) -> tuple[Values, Array]:
    """How many values are not finite, and the rest."""
    magnitudes = codes & codes.dtype.type(layout.sign - 1)
    odd = magnitudes > layout.highest
    values = layout.values(codes[odd])
    found = Values(
        codes.size,
        nan=int(np.isnan(values).sum()),
        above=int((values == math.inf).sum()),
        below=int((values == -math.inf).sum()),
        first=int(odd.argmax()),
    )
    return found, codes[~odd]


def _tabled(codes: Array, table: Array, wanted: Measure) -> Values:
    """Values of one byte each, which are counted by their code."""
    counts = np.bincount(codes, minlength=len(table))
    odd = ~np.isfinite(table)
    found = Values(codes.size, nan=int(counts[odd].sum()))
    if found.nan:
        found = found._replace(first=int(odd[codes].argmax()))
    there = table[(counts > 0) & ~odd]
    if Measure.RANGE in wanted and there.size:
        found = found._replace(smallest=float(there.min()), largest=float(there.max()))
    if Measure.MOMENTS in wanted:
        found = found._replace(
            total=float(counts[~odd] @ table[~odd]), squares=float(counts[~odd] @ np.square(table[~odd]))
        )
    if Measure.ZEROS in wanted:
        found = found._replace(zeros=int(counts[table == 0].sum()))
    return found


def _integers(values: Array, wanted: Measure) -> Values:
    found = Values(values.size)
    if Measure.RANGE in wanted and values.size:
        found = found._replace(smallest=int(values.min()), largest=int(values.max()))
    if Measure.MOMENTS in wanted:
        total, squares = _moments(values.astype("f8"))
        found = found._replace(total=total, squares=squares)
    if Measure.ZEROS in wanted:
        found = found._replace(zeros=values.size - int(np.count_nonzero(values)))
    return found


def _moments(values: Array) -> tuple[float, float]:
    """The sum of values and of their squares."""
    with np.errstate(over="ignore"):
        return float(values.sum()), float(values @ values)

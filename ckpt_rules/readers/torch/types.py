"""The types of torch's storages and tensors, and the shapes that it takes."""

from __future__ import annotations

from math import prod
from typing import NamedTuple, TypeGuard

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import DTYPE_BITS
from ckpt_rules.readers.pickle.stack import Global

MAX_DIMENSIONS = 64
MAX_SIZE = (1 << 63) - 1
_TYPE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda", "torch.sparse", "torch.cuda.sparse"})

STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4", "UntypedStorage": "uint8",
}  # fmt: skip
# One element of torch's packed dtypes is a whole byte.
NBYTES = {dtype: (bits + 7) // 8 for dtype, bits in DTYPE_BITS.items()} | {
    "bits8": 1, "bits16": 2, "bits1x8": 1, "bits2x4": 1, "bits4x2": 1,
    **{f"{sign}{bits}": 1 for sign in ("int", "uint") for bits in range(1, 8)},
}  # fmt: skip
"""Bytes of one element of a dtype."""


class Geometry(NamedTuple):
    """A shape with its strides: how many elements it has, and how many of the storage it reaches over.

    strides: None where the elements lie row by row
    """

    sizes: tuple[int, ...]
    numel: int
    reach: int
    strides: tuple[int, ...] | None


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number that a signed 64-bit size can hold."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def as_tuple(value: object) -> tuple[object, ...]:
    """The items of a list or tuple; TypeError for anything else."""
    if type(value) is list:
        return tuple(value)
    if type(value) is not tuple:
        raise TypeError
    return value


def measure(sizes: tuple[object, ...], steps: tuple[object, ...]) -> Geometry:
    """A shape with its strides; FormatError where torch refuses them."""
    if len(sizes) != len(steps) or len(sizes) > MAX_DIMENSIONS:
        raise FormatError(f"a tensor has {len(sizes)} dimensions and {len(steps)} strides")
    shape, strides = [n for n in sizes if is_size(n)], [n for n in steps if is_size(n)]
    if len(shape) < len(sizes) or len(strides) < len(steps):
        raise FormatError(f"a tensor has the shape {sizes!r:.60} with strides {steps!r:.60}, which are not all sizes")
    numel = prod(shape)
    if numel > MAX_SIZE:
        raise FormatError(f"a tensor of the shape {sizes!r:.60} has more elements than fit in 63 bits")
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if numel else 0
    return Geometry(tuple(shape), numel, reach, None if _is_row_major(shape, strides) else tuple(strides))


def _is_row_major(shape: list[int], strides: list[int]) -> bool:
    expected = 1
    for size, step in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def is_dtype(value: Global) -> bool:
    """Whether a name is that of a dtype."""
    return value.module == "torch" and value.name in NBYTES


def is_type(value: Global) -> bool:
    """Whether a name is that of a storage, of a quantisation scheme, or of a class for tensors of one dtype."""
    return value.module in _TYPE_MODULES and (
        value.name in STORAGE_DTYPES
        or value.name == "TypedStorage"
        or value.name.endswith(("Tensor", "_affine", "_symmetric", "_qparams"))
    )


def dtype_of(value: object) -> str:
    """The dtype that a name is; TypeError where it is none."""
    if type(value) is not Global or not is_dtype(value):
        raise TypeError
    return value.name

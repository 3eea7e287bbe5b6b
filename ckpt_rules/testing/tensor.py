"""A tensor for tests that run without torch: dtype, shape, and its elements as little-endian bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

# dtype -> (the storage class that torch.save names, safetensors' name, struct code, bytes of an element)
DTYPES: dict[str, tuple[str, str, str, int]] = {
    "float64": ("DoubleStorage", "F64", "d", 8),
    "float32": ("FloatStorage", "F32", "f", 4),
    "float16": ("HalfStorage", "F16", "e", 2),
    "bfloat16": ("BFloat16Storage", "BF16", "f", 2),
    "int64": ("LongStorage", "I64", "q", 8),
    "int32": ("IntStorage", "I32", "i", 4),
    "int8": ("CharStorage", "I8", "b", 1),
    "uint8": ("ByteStorage", "U8", "B", 1),
    "bool": ("BoolStorage", "BOOL", "?", 1),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A contiguous tensor. `dtype` is torch's name; `data` holds the elements in row-major order, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != prod(self.shape) * _known(self.dtype)[3]:
            raise ValueError(f"{len(self.data):,} bytes do not make a {self.dtype} tensor of shape {self.shape}")

    @classmethod
    def of(cls, values: Iterable[float], shape: Sequence[int] | None = None, dtype: str = "float32") -> Self:
        """A tensor of these numbers, in row-major order; of one dimension unless `shape` is given."""
        numbers = list(values)
        data = struct.pack(f"<{len(numbers)}{_known(dtype)[2]}", *numbers)
        if dtype == "bfloat16":
            data = _upper_halves(data)
        return cls(dtype, tuple(shape if shape is not None else (len(numbers),)), data)

    @classmethod
    def full(cls, shape: Sequence[int], value: float, dtype: str = "float32") -> Self:
        """A tensor with one number in all places; `()` makes one without dimensions."""
        return cls.of([value] * prod(shape), shape, dtype)

    @classmethod
    def random(cls, shape: Sequence[int], seed: int | str = 0, scale: float = 1.0, dtype: str = "float32") -> Self:
        """Normally distributed numbers, the same for the same seed."""
        source = random.Random(seed)  # noqa: S311 - no secret
        return cls.of([source.gauss(0, scale) for _ in range(prod(shape))], shape, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take."""
        return len(self.data)

    def values(self) -> tuple[float, ...]:
        """The elements, in row-major order."""
        data, code = self.data, DTYPES[self.dtype][2]
        if self.dtype == "bfloat16":
            data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        return struct.unpack(f"<{prod(self.shape)}{code}", data)


def holds_tensor(value: object) -> bool:
    """Whether a nested value holds a tensor of the kit, so that torch can't write it."""
    if isinstance(value, Mapping):
        return any(map(holds_tensor, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_tensor, value))
    return isinstance(value, Tensor)


def _known(dtype: str) -> tuple[str, str, str, int]:
    if dtype not in DTYPES:
        raise ValueError(f"there is no dtype {dtype!r}; the kit knows {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _upper_halves(data: bytes) -> bytes:
    """float32 to bfloat16, cut rather than rounded."""
    return b"".join(data[i + 2 : i + 4] for i in range(0, len(data), 4))

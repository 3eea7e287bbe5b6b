"""What the objects in a torch pickle stand for: tensors, storages, and the plain containers around them.

Keys are exact (module, name) pairs: a name is never trusted for its module, nor a module for its names.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import NamedTuple, TypeGuard

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import DTYPE_BITS, Opaque, ReadProblem, TensorInfo
from ckpt_rules.readers.pickle_stack import Global, hashable

MAX_DIMENSIONS = 64
_MAX_NUMEL = 1 << 62

_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
_SCALARS = {
    "float64": "d", "float32": "f", "float16": "e", "bfloat16": "", "int64": "q", "int32": "i", "int16": "h",
    "int8": "b", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "bool": "?",
}  # fmt: skip
_NUMPY_SCALARS = {
    "f2": "e", "f4": "f", "f8": "d", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
}  # fmt: skip


class Storage(NamedTuple):
    """A run of memory that tensors view.

    key:    its name: the zip entry `data/<key>`
    dtype:  of its elements; None where it is untyped bytes
    nbytes: what the pickle says it holds
    offset: byte in the file where it starts, or None where it is not there
    """

    key: str
    dtype: str | None
    nbytes: int
    offset: int | None


class Stored(NamedTuple):
    """Where a storage lies in the file. `offset` is None where its bytes can't be read in place."""

    offset: int | None
    nbytes: int


class TorchBuilder:
    """Turns what a torch pickle calls and refers to into inert values, and keeps the storages and their problems.

    locate: where the bytes of a storage lie, by key; None where the file has no such storage
    read:   bytes of the file by offset and length
    """

    def __init__(
        self,
        locate: Callable[[str], Stored | None] = lambda key: None,
        read: Callable[[int, int], bytes] = lambda offset, length: b"",
        *,
        byteorder: str = "little",
    ) -> None:
        self.storages: dict[str, Storage] = {}
        self.problems: list[ReadProblem] = []
        self._locate = locate
        self._read = read
        self._order = ">" if byteorder == "big" else "<"

    def persistent(self, pid: object) -> object:
        """The storage that `('storage', type, key, location, numel)` names; legacy files add view metadata."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise FormatError("something other than a storage is kept outside of the pickle")
        _, kind, key, device, numel = pid[:5]
        if not isinstance(key, str) or not isinstance(device, str) or not _is_size(numel):
            raise FormatError("a storage is referred to without a name, a device or a size")
        dtype = _STORAGE_DTYPES.get(kind.name) if isinstance(kind, Global) else None
        itemsize = DTYPE_BITS[dtype] // 8 if dtype else 1
        storage = self._storage(key, dtype, numel * itemsize)
        view = pid[5] if len(pid) > 5 else None
        if isinstance(view, tuple) and len(view) == 3 and all(map(_is_size, view[1:])):
            offset = None if storage.offset is None else storage.offset + view[1] * itemsize
            return storage._replace(offset=offset, nbytes=view[2] * itemsize)
        return storage

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of a call; `Opaque` for whatever is not known."""
        if isinstance(function, Global):
            if known := _BUILDERS.get((function.module, function.name)):
                try:
                    return known(self, *args)
                except (TypeError, ValueError, struct.error):
                    if function.module == _REBUILD:
                        raise FormatError(f"{function} is called with arguments that it does not take") from None
            return Opaque(str(function), args)
        if not isinstance(function, Opaque):
            raise FormatError(f"a {type(function).__name__} is called as if it were a function")
        return Opaque(function.type, args)

    def _storage(self, key: str, dtype: str | None, nbytes: int) -> Storage:
        if key in self.storages:
            return self.storages[key]._replace(dtype=dtype)
        stored = self._locate(key)
        storage = Storage(key, dtype, nbytes, stored.offset if stored else None)
        if stored is None:
            self.problems.append(
                ReadProblem("storage-missing", f"the storage '{key}' of {nbytes:,} bytes is not in the file", where=key)
            )
        elif stored.nbytes != nbytes:
            message = f"the storage '{key}' holds {stored.nbytes:,} bytes where its tensors need {nbytes:,}"
            self.problems.append(ReadProblem("storage-size", message, stored.offset, key))
        self.storages[key] = storage
        return storage

    def tensor(
        self, storage: object, first: object, shape: object, stride: object, dtype: str | None = None
    ) -> TensorInfo:
        """A strided view of a storage; `first` counts elements."""
        sizes = _sizes(shape)
        if not isinstance(storage, Storage) or not _is_size(first):
            raise TypeError("a tensor without a storage")
        dtype = dtype or storage.dtype or "uint8"
        bits = DTYPE_BITS.get(dtype, 8)
        numel = prod(sizes)
        if numel > _MAX_NUMEL:
            raise FormatError(f"a tensor of {numel:,} elements")
        last = first + sum((n - 1) * s for n, s in zip(sizes, _sizes(stride), strict=True)) if numel else first - 1
        end = (last + 1) * bits // 8
        if end > storage.nbytes:
            message = (
                f"a tensor of shape {list(sizes)} needs the first {end:,} bytes of the storage '{storage.key}', "
                f"which has {storage.nbytes:,}"
            )
            self.problems.append(ReadProblem("storage-bounds", message, storage.offset, storage.key))
        value = None if sizes or end > storage.nbytes else self._value(storage, first, dtype)
        return TensorInfo(dtype, sizes, -(-numel * bits // 8), storage.offset, storage.key, storage.nbytes, value)

    def _value(self, storage: Storage, first: int, dtype: str) -> float | int | bool | None:
        code = _SCALARS.get(dtype)
        if code is None or storage.offset is None:
            return None
        itemsize = DTYPE_BITS[dtype] // 8
        raw = self._read(storage.offset + first * itemsize, itemsize)
        if len(raw) < itemsize:
            return None
        if not code:  # bfloat16 is the upper half of a float32
            raw, code = (b"\0\0" + raw if self._order == "<" else raw + b"\0\0"), "f"
        number: float | int | bool = struct.unpack(self._order + code, raw)[0]
        return number


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MAX_NUMEL


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise TypeError("a shape that is no tuple of sizes")
    for size in value:
        if type(size) is not int or not 0 <= size <= _MAX_NUMEL:
            raise TypeError("a shape that is no tuple of sizes")
    return tuple(value)


def _dtype(value: object) -> str | None:
    return value.name if isinstance(value, Global) and value.module == "torch" and value.name in DTYPE_BITS else None


def _tensor(builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, *_: object) -> object:
    return builder.tensor(storage, first, shape, stride)


def _tensor_v2(
    builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    *_: object,
) -> object:  # fmt: skip
    return builder.tensor(storage, first, shape, stride)


def _tensor_v3(
    builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    dtype: object, *_: object,
) -> object:  # fmt: skip
    return builder.tensor(storage, first, shape, stride, _dtype(dtype))


def _itself(builder: TorchBuilder, value: object, *_: object) -> object:
    return value


def _from_type(builder: TorchBuilder, function: object, kind: object, args: object, *_: object) -> object:
    return builder.build(function, args if isinstance(args, tuple) else ())


def _meta(builder: TorchBuilder, dtype: object, shape: object, *_: object) -> object:
    return TensorInfo(_dtype(dtype) or "float32", _sizes(shape), 0)


def _mapping(builder: TorchBuilder, pairs: object = (), *_: object) -> object:
    if isinstance(pairs, Mapping):
        return dict(pairs)
    return {hashable(k): v for k, v in _items(pairs)}


def _default_dict(builder: TorchBuilder, factory: object = None, pairs: object = (), *_: object) -> object:
    return _mapping(builder, pairs)


def _items(value: object) -> Iterable[tuple[object, object]]:
    if not isinstance(value, list | tuple):
        raise TypeError("no pairs")
    return [(k, v) for k, v in value]


def _sequence(value: object) -> list[object]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError("no sequence")
    return list(value)


def _encode(builder: TorchBuilder, text: object, encoding: object = "utf-8", *_: object) -> object:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise TypeError("no text to encode")
    return text.encode(str(encoding))


def _path(builder: TorchBuilder, *parts: object) -> object:
    if not all(isinstance(p, str) for p in parts):
        raise TypeError("no path")
    return "/".join(str(p).rstrip("/") or "" for p in parts) or "."


def _numpy_scalar(builder: TorchBuilder, dtype: object, raw: object, *_: object) -> object:
    """A NumPy scalar as a number; its dtype keeps the byte order in its state: (version, '<', …)."""
    if not isinstance(dtype, Opaque) or not dtype.args or not isinstance(raw, bytes):
        raise TypeError("no scalar")
    code = _NUMPY_SCALARS.get(str(dtype.args[0]))
    if code is None:
        raise TypeError("no number")
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    return struct.unpack((">" if order == ">" else "<") + code, raw)[0]


_Build = Callable[..., object]
_REBUILD = "torch._utils"
_BUILDERS: dict[tuple[str, str], _Build] = {
    (_REBUILD, "_rebuild_tensor"): _tensor,
    (_REBUILD, "_rebuild_tensor_v2"): _tensor_v2,
    (_REBUILD, "_rebuild_tensor_v3"): _tensor_v3,
    (_REBUILD, "_rebuild_qtensor"): _tensor,
    (_REBUILD, "_rebuild_parameter"): _itself,
    (_REBUILD, "_rebuild_parameter_with_state"): _itself,
    (_REBUILD, "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.nn.parameter", "Parameter"): _itself,
    ("torch", "Size"): lambda builder, sizes=(): tuple(_sequence(sizes)),
    ("torch", "device"): lambda builder, *parts: ":".join(map(str, parts)),
    ("torch.serialization", "_get_layout"): _itself,
    ("collections", "OrderedDict"): _mapping,
    ("collections", "Counter"): _mapping,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "dict"): _mapping,
    ("builtins", "list"): lambda builder, items=(): _sequence(items),
    ("builtins", "tuple"): lambda builder, items=(): tuple(_sequence(items)),
    ("builtins", "set"): lambda builder, items=(): set(map(hashable, _sequence(items))),
    ("builtins", "frozenset"): lambda builder, items=(): frozenset(map(hashable, _sequence(items))),
    ("builtins", "complex"): lambda builder, real, imag=0.0: Opaque("builtins.complex", (real, imag)),
    ("builtins", "bytearray"): lambda builder, raw=b"", *_: raw if isinstance(raw, bytes) else b"",
    ("_codecs", "encode"): _encode,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    **{
        ("pathlib", n): _path
        for n in ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
}

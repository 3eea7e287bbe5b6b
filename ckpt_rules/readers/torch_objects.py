"""What the objects in a torch pickle stand for: storages, and tensors that view them.

A storage is a `TensorInfo` of one dimension; a tensor keeps the storage's name, place and size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple, TypeGuard, cast

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import DTYPE_BITS, Opaque, TensorInfo
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.pickle_stack import Global
from ckpt_rules.readers.plain_objects import CONSTRUCTORS, CantTell, Constructor, PlainBuilder
from ckpt_rules.readers.scalars import decode_scalar

MAX_DIMENSIONS = 64
MAX_SIZE = (1 << 63) - 1
MAX_GEOMETRIES = 10_000

STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4", "UntypedStorage": "uint8",
}  # fmt: skip
# One element of torch's packed dtypes is a whole byte.
_NBYTES = {dtype: (bits + 7) // 8 for dtype, bits in DTYPE_BITS.items()} | {
    "bits8": 1, "bits16": 2, "bits1x8": 1, "bits2x4": 1, "bits4x2": 1,
    **{f"{sign}{bits}": 1 for sign in ("int", "uint") for bits in range(1, 8)},
}  # fmt: skip
_DIFFERENTIABLE = re.compile("b?float|complex")
_LOCATION = re.compile(r"[a-z_]+(?::(?:0|[1-9][0-9]*))?")
_LAYOUTS = frozenset(
    f"torch.{name}"
    for name in ("strided", "_mkldnn", "jagged", *(f"sparse_{kind}" for kind in ("coo", "csr", "csc", "bsr", "bsc")))
)
_STATE_PARTS = 2
_TYPE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda", "torch.sparse", "torch.cuda.sparse"})
_ID_PARTS, _LEGACY_ID_PARTS, _VIEW_PARTS = 5, 6, 3

_new_tensor = cast("Callable[[tuple[object, ...]], TensorInfo]", partial(tuple.__new__, TensorInfo))


class Stored(NamedTuple):
    """Where a storage lies in the file. `offset` is None where its bytes can't be read in place; -1 bytes: unknown."""

    offset: int | None
    nbytes: int


class _Geometry(NamedTuple):
    """A shape with its strides: how many elements it has, and how many of the storage it reaches over."""

    sizes: tuple[int, ...]
    numel: int
    reach: int


class TorchBuilder(PlainBuilder):
    """Keeps the storages and what is wrong with them while a pickle is run.

    locate: where the bytes of a storage lie, by key; None where the file has no such storage
    read:   bytes of the file by offset and length
    legacy: whether storages are named as in files from before torch 1.6, where a view of one has its own name
    """

    must_fit = PlainBuilder.must_fit | {
        "torch", "torch._utils", "torch._tensor", "torch.nn.parameter", "torch.serialization",
    }  # fmt: skip

    def __init__(
        self,
        locate: Callable[[str], Stored | None],
        read: Callable[[int, int], bytes],
        log: ProblemLog,
        *,
        byteorder: str = "little",
        legacy: bool = False,
    ) -> None:
        super().__init__()
        self.known = _KNOWN
        self.storages: dict[str, TensorInfo] = {}
        self._locate, self._read, self._log = locate, read, log
        self._big_endian = byteorder == "big"
        self._legacy = legacy
        self._geometries: dict[tuple[object, object], _Geometry] = {}

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of a call; neither dtypes nor types of storages and tensors are called."""
        if type(function) is Global and (_is_dtype(function) or _is_torch_type(function)):
            raise FormatError(f"{function} is called as if it were a function")
        return super().build(function, args)

    def persistent(self, pid: object) -> object:
        """The storage that `('storage', type, key, location, numel)` names; legacy files add a view, or name a module."""
        if not isinstance(pid, tuple) or not pid:
            raise FormatError("something without a name is kept outside of the pickle")
        if pid[0] == "module" and self._legacy and len(pid) > 1:
            return pid[1]
        if pid[0] != "storage" or len(pid) != (_LEGACY_ID_PARTS if self._legacy else _ID_PARTS):
            raise FormatError("something other than a storage is kept outside of the pickle")
        _, kind, key, location, numel, *view = pid
        dtype = STORAGE_DTYPES.get(kind.name) if type(kind) is Global else None
        if self._legacy and kind == "torch.storage.UntypedStorage":
            dtype = None  # it has none, and the legacy loader asks for it
        if dtype is None or type(key) is not str or not is_size(numel):
            raise FormatError("a storage is referred to without a type, a name or a size")
        if type(location) is not str or not _LOCATION.fullmatch(location):
            raise FormatError(f"the storage '{key}' lies on {location!r:.40}, which is no device")
        storage = self._storage(key, dtype, numel)
        return storage if not view or view[0] is None else _part_of(storage, view[0])

    def _storage(self, key: str, dtype: str, numel: int) -> TensorInfo:
        known = self.storages.get(key)
        if known is not None and (known.nbytes or self._legacy):
            # Whatever type it is referred to by later, torch keeps the first, but for one without bytes.
            return known if known.nbytes else known._replace(dtype=dtype)
        nbytes = numel * _NBYTES[dtype]
        stored = self._locate(key)
        if stored is None:
            message = f"the storage '{key}' of {nbytes:,} bytes is not in the file"
            self._log.add("storage-missing", message, where=key)
        elif stored.nbytes not in (nbytes, -1):
            message = f"the storage '{key}' holds {stored.nbytes:,} bytes where its tensors need {nbytes:,}"
            self._log.add("storage-size", message, stored.offset, key)
        offset = stored.offset if stored else None
        storage = self.storages[key] = _new_tensor((dtype, (numel,), nbytes, offset, key, nbytes, None))
        return storage

    def tensor(
        self, storage: object, first: object, shape: object, stride: object, dtype: str | None = None
    ) -> TensorInfo:
        """A strided view of a storage; `first` counts elements."""
        if type(storage) is not TensorInfo or storage.storage is None or not is_size(first):
            raise TypeError
        sizes, numel, reach = self._geometry(shape, stride)
        dtype = dtype or storage.dtype
        itemsize = _NBYTES[dtype]
        needed = (first + reach) * itemsize if numel else 0
        value = None
        if needed > storage.nbytes:
            message = (
                f"a tensor of shape {list(sizes)} needs the first {needed:,} bytes of the storage '{storage.storage}', "
                f"which has {storage.nbytes:,}"
            )
            self._log.add("storage-bounds", message, storage.offset, storage.storage)
        elif not sizes and storage.offset is not None:
            at = storage.offset + first * itemsize
            raw = self._read(at, itemsize)
            if len(raw) < itemsize:
                self._log.add(
                    "cut-short", f"the file has no {itemsize} bytes at byte {at:,} any more", at, storage.storage
                )
            value = decode_scalar(raw, dtype, big_endian=self._big_endian)
        return _new_tensor(
            (dtype, sizes, numel * itemsize, storage.offset, storage.storage, storage.storage_nbytes, value)
        )

    def _geometry(self, shape: object, stride: object) -> _Geometry:
        sizes, steps = _as_tuple(shape), _as_tuple(stride)
        known = self._geometries.get((sizes, steps))
        if known is None or not {*map(type, sizes), *map(type, steps)} <= {int}:  # True and 1.0 are equal to 1
            if len(self._geometries) >= MAX_GEOMETRIES:
                self._geometries.clear()
            known = self._geometries[sizes, steps] = _measure(sizes, steps)
        return known


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number that a signed 64-bit size can hold."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def _as_tuple(value: object) -> tuple[object, ...]:
    if type(value) is list:
        return tuple(value)
    if type(value) is not tuple:
        raise TypeError
    return value


def _measure(sizes: tuple[object, ...], steps: tuple[object, ...]) -> _Geometry:
    if len(sizes) != len(steps) or len(sizes) > MAX_DIMENSIONS:
        raise FormatError(f"a tensor has {len(sizes)} dimensions and {len(steps)} strides")
    shape, strides = [n for n in sizes if is_size(n)], [n for n in steps if is_size(n)]
    if len(shape) < len(sizes) or len(strides) < len(steps):
        raise FormatError(f"a tensor has the shape {sizes!r:.60} with strides {steps!r:.60}, which are not all sizes")
    numel = prod(shape)
    if numel > MAX_SIZE:
        raise FormatError(f"a tensor of the shape {sizes!r:.60} has more elements than fit in 63 bits")
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if numel else 0
    return _Geometry(tuple(shape), numel, reach)


def _part_of(storage: TensorInfo, view: object) -> TensorInfo:
    """The part of a storage that a legacy file gives a name of its own: (key, first element, elements)."""
    if type(view) is not tuple or len(view) != _VIEW_PARTS or not all(map(is_size, view[1:])):
        raise FormatError(f"a view of the storage '{storage.storage}' is not described by a name and two sizes")
    _, first, numel = view
    itemsize = _NBYTES[storage.dtype]
    if (first + numel) * itemsize > storage.nbytes:
        raise FormatError(f"a view of the storage '{storage.storage}' passes its end")
    offset = None if storage.offset is None else storage.offset + first * itemsize
    return storage._replace(shape=(numel,), nbytes=numel * itemsize, offset=offset)


def _is_dtype(value: Global) -> bool:
    return value.module == "torch" and value.name in _NBYTES


def _is_torch_type(value: Global) -> bool:
    """Whether a name is that of a storage, of a quantisation scheme, or of a class for tensors of one dtype."""
    return value.module in _TYPE_MODULES and (
        value.name in STORAGE_DTYPES
        or value.name == "TypedStorage"
        or value.name.endswith(("Tensor", "_affine", "_symmetric", "_qparams"))
    )


def _dtype(value: object) -> str:
    if type(value) is not Global or not _is_dtype(value):
        raise TypeError
    return value.name


def _with_grad(tensor: object, requires_grad: object) -> TensorInfo:
    if type(tensor) is not TensorInfo or type(requires_grad) is not bool:
        raise TypeError
    if requires_grad and not _DIFFERENTIABLE.match(tensor.dtype):
        raise FormatError(f"a tensor of dtype {tensor.dtype} requires gradients, which torch refuses")
    return tensor


def _with_metadata(tensor: TensorInfo, metadata: object) -> TensorInfo:
    """The same tensor where its bits (`conj`, `neg`) are given as torch takes them."""
    if not metadata:
        return tensor
    if type(metadata) is not dict or not all(type(k) is str and type(v) is bool for k, v in metadata.items()):
        raise TypeError
    if metadata.get("conj") and not tensor.dtype.startswith("complex"):
        raise TypeError
    return tensor


def _with_state(tensor: object, state: object) -> object:
    """The same tensor where its further attributes are given as torch takes them."""
    parts = state if type(state) is tuple else (state,)
    if len(parts) > _STATE_PARTS or (type(state) is tuple and len(state) != _STATE_PARTS):
        raise TypeError
    for part in parts:
        if part and not (type(part) is dict and all(type(name) is str for name in part)):
            raise TypeError
    return tensor


def _tensor(builder: TorchBuilder, storage: object, first: object, shape: object, stride: object) -> TensorInfo:
    return builder.tensor(storage, first, shape, stride)


def _tensor_v2(
    builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    metadata: object = None,
) -> TensorInfo:  # fmt: skip
    return _with_metadata(_with_grad(builder.tensor(storage, first, shape, stride), grad), metadata)


def _tensor_v3(
    builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    dtype: object, metadata: object = None,
) -> TensorInfo:  # fmt: skip
    tensor = _with_grad(builder.tensor(storage, first, shape, stride, _dtype(dtype)), grad)
    if grad:
        raise FormatError(
            f"a tensor of dtype {tensor.dtype} requires gradients: torch.save writes it, torch.load fails"
        )
    return _with_metadata(tensor, metadata)


def _quantised(
    builder: TorchBuilder, storage: object, first: object, shape: object, stride: object, quantizer: object,
    grad: object, hooks: object,
) -> TensorInfo:  # fmt: skip
    return _with_grad(builder.tensor(storage, first, shape, stride), grad)


def _parameter(builder: TorchBuilder, data: object = None, grad: object = True) -> object:
    if data is None:
        raise CantTell
    # The data of a tensor subclass are an object of its own.
    return data if isinstance(data, Opaque) else _with_grad(data, grad)


def _rebuilt_parameter(builder: TorchBuilder, data: object, grad: object, hooks: object) -> object:
    return _parameter(builder, data, grad)


def _parameter_with_state(builder: TorchBuilder, data: object, grad: object, hooks: object, state: object) -> object:
    return _with_state(_parameter(builder, data, grad), state)


def _from_type(builder: TorchBuilder, function: object, kind: object, args: object, state: object) -> object:
    if type(args) is not tuple or not isinstance(kind, Global):
        raise TypeError
    tensor = builder.build(function, args)
    if not isinstance(tensor, TensorInfo | Opaque):
        raise TypeError
    return _with_state(tensor, state)


def _meta(builder: TorchBuilder, dtype: object, shape: object, stride: object, grad: object) -> TensorInfo:
    sizes, steps = _as_tuple(shape), _as_tuple(stride)
    name, geometry = _dtype(dtype), _measure(sizes, steps)
    return _with_grad(TensorInfo(name, geometry.sizes, geometry.numel * _NBYTES[name]), grad)


def _from_cpu(builder: TorchBuilder, data: object, dtype: object, device: object, grad: object) -> TensorInfo:
    if type(data) is not TensorInfo or type(device) is not str:
        raise TypeError
    return _with_grad(data._replace(dtype=_dtype(dtype)), grad)


def _from_numpy(builder: TorchBuilder, data: object, dtype: object, device: object, grad: object) -> object:
    raise CantTell if isinstance(data, Opaque) else TypeError


def _nested(builder: TorchBuilder, buffer: object, sizes: object, strides: object, offsets: object) -> object:
    raise CantTell if {type(part) for part in (buffer, sizes, strides, offsets)} == {TensorInfo} else TypeError


def _wrapper(
    builder: TorchBuilder, kind: object, dtype: object, shape: object, stride: object, first: object, layout: object,
    device: object, grad: object,
) -> object:  # fmt: skip
    if type(kind) is not Global or type(device) is not str or type(grad) is not bool or layout not in _LAYOUTS:
        raise TypeError
    _dtype(dtype), _measure(_as_tuple(shape), _as_tuple(stride))
    raise CantTell


def _sparse(builder: TorchBuilder, layout: object, data: object) -> TensorInfo:
    """A sparse tensor by its dense shape; its bytes are those of indices and values."""
    parts = [part for part in _as_tuple(data) if type(part) is TensorInfo]
    shapes = [part for part in _as_tuple(data) if type(part) is tuple]
    if not parts or not shapes:
        raise TypeError
    return TensorInfo(parts[-1].dtype, tuple(filter(is_size, shapes[-1])), sum(part.nbytes for part in parts))


def _device(builder: TorchBuilder, kind: object, index: object = None) -> str:
    name = str(kind) if index is None else f"{kind}:{index}"
    if type(kind) is not str or not _LOCATION.fullmatch(name):
        raise FormatError(f"{name!r:.40} is no device")
    return name


def _size(builder: TorchBuilder, sizes: object = ()) -> tuple[object, ...]:
    numbers = _as_tuple(sizes)
    if not all(isinstance(n, int) and -MAX_SIZE <= n <= MAX_SIZE for n in numbers):
        raise TypeError
    return tuple(map(int, numbers))  # type: ignore[call-overload]


def _layout(builder: TorchBuilder, name: object) -> str:
    if name not in _LAYOUTS:
        raise TypeError
    return name


_KNOWN: dict[tuple[str, str], Constructor] = {
    **CONSTRUCTORS,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_qtensor"): _quantised,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
    ("torch._utils", "_rebuild_parameter"): _rebuilt_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter_with_state,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _from_numpy,
    ("torch._utils", "_rebuild_nested_tensor"): _nested,
    ("torch._utils", "_rebuild_wrapper_subclass"): _wrapper,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _from_cpu,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): _layout,
}

"""What torch's functions make of their arguments: tensors by dtype and shape, and a TypeError where torch would raise."""

from __future__ import annotations

import re
from math import prod
from typing import Protocol

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque, TensorInfo
from ckpt_rules.readers.pickle.plain_objects import CONSTRUCTORS, CantTell, Constructor
from ckpt_rules.readers.pickle.stack import Global
from ckpt_rules.readers.torch.types import MAX_SIZE, NBYTES, as_tuple, dtype_of, is_size, measure

LOCATION = re.compile(r"[a-z_]+(?::(?:0|[1-9][0-9]*))?")
_DIFFERENTIABLE = re.compile("b?float|complex")
_LAYOUTS = frozenset(
    f"torch.{name}"
    for name in ("strided", "_mkldnn", "jagged", *(f"sparse_{kind}" for kind in ("coo", "csr", "csc", "bsr", "bsc")))
)
_DENSE = frozenset({"torch.strided", "torch._mkldnn", "torch.jagged"})
_INDICES = frozenset({"int64", "int32", "int16", "int8", "uint8"})
_QUANTISED = ("qint", "quint")
_STATE_PARTS, _CHANNEL_PARTS, _COO_TENSORS, _COMPRESSED_TENSORS, _MATRIX = 2, 3, 2, 3, 2


class Named(str):
    """A device or a layout: text for whoever reads it here, no text for what a pickle passes it to."""

    __slots__ = ()


class Builder(Protocol):
    """What these functions ask of whoever builds the values of a torch file."""

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of a call."""
        ...

    def tensor(
        self, storage: object, first: object, shape: object, stride: object, dtype: str | None = None
    ) -> TensorInfo:
        """A strided view of a storage; `first` counts elements."""
        ...


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
    if type(metadata) is not dict or not all(_is_text(k) and type(v) is bool for k, v in metadata.items()):
        raise TypeError
    if metadata.get("conj") and not tensor.dtype.startswith("complex"):
        raise TypeError
    return tensor


def _is_text(value: object) -> bool:
    """Whether it is text that C++ can take: half of a surrogate pair has no UTF-8."""
    return type(value) is str and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _with_state(tensor: object, state: object) -> object:
    """The same tensor where its further attributes are given as torch takes them."""
    parts = state if type(state) is tuple else (state,)
    if len(parts) > _STATE_PARTS or (type(state) is tuple and len(state) != _STATE_PARTS):
        raise TypeError
    for part in parts:
        if part and not (type(part) is dict and all(type(name) is str for name in part)):
            raise TypeError
    return tensor


def _tensor(builder: Builder, storage: object, first: object, shape: object, stride: object) -> TensorInfo:
    return builder.tensor(storage, first, shape, stride)


def _tensor_v2(
    builder: Builder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    metadata: object = None,
) -> TensorInfo:  # fmt: skip
    return _with_metadata(_with_grad(builder.tensor(storage, first, shape, stride), grad), metadata)


def _tensor_v3(
    builder: Builder, storage: object, first: object, shape: object, stride: object, grad: object, hooks: object,
    dtype: object, metadata: object = None,
) -> TensorInfo:  # fmt: skip
    tensor = _with_grad(builder.tensor(storage, first, shape, stride, dtype_of(dtype)), grad)
    if grad:
        raise FormatError(
            f"a tensor of dtype {tensor.dtype} requires gradients: torch.save writes it, torch.load fails"
        )
    return _with_metadata(tensor, metadata)


def _quantised(
    builder: Builder, storage: object, first: object, shape: object, stride: object, quantizer: object,
    grad: object, hooks: object,
) -> TensorInfo:  # fmt: skip
    tensor = _with_grad(builder.tensor(storage, first, shape, stride), grad)
    scheme, *parameters = quantizer if type(quantizer) is tuple and quantizer else (None,)
    if not tensor.dtype.startswith(_QUANTISED) or type(scheme) is not Global or scheme.module != "torch":
        raise TypeError
    if scheme.name == "per_tensor_affine":
        fits = [type(p) for p in parameters] in ([float, int], [int, int]) and all(map(_fits_in_64_bits, parameters))
    elif scheme.name in ("per_channel_affine", "per_channel_affine_float_qparams"):
        fits = _fit_channels(tensor.shape, parameters)
    else:
        fits = False
    if not fits:
        raise TypeError
    return tensor


def _fits_in_64_bits(number: object) -> bool:
    return not isinstance(number, int) or -(1 << 63) <= number < 1 << 63


def _fit_channels(shape: tuple[int, ...], parameters: list[object]) -> bool:
    """Whether scales and zero points are given for each channel along an axis."""
    if len(parameters) != _CHANNEL_PARTS or type(axis := parameters[-1]) is not int or not 0 <= axis < len(shape):
        return False
    counts = [p.numel if type(p) is TensorInfo else len(p) if type(p) is list else -1 for p in parameters[:-1]]
    return counts == [shape[axis]] * len(counts)


def _parameter(builder: Builder, data: object = None, grad: object = True) -> object:
    if data is None:
        raise CantTell
    # The data of a tensor subclass are an object of its own.
    return data if isinstance(data, Opaque) else _with_grad(data, grad)


def _rebuilt_parameter(builder: Builder, data: object, grad: object, hooks: object) -> object:
    return _parameter(builder, data, grad)


def _parameter_with_state(builder: Builder, data: object, grad: object, hooks: object, state: object) -> object:
    return _with_state(_parameter(builder, data, grad), state)


def _from_type(builder: Builder, function: object, kind: object, args: object, state: object) -> object:
    if type(args) is not tuple or not isinstance(kind, Global):
        raise TypeError
    tensor = builder.build(function, args)
    if not isinstance(tensor, TensorInfo | Opaque):
        raise TypeError
    return tensor if _takes_any_state(kind) else _with_state(tensor, state)


def _takes_any_state(kind: Global) -> bool:
    """Whether a subclass of tensors reads its state by itself, as the sharded ones of FSDP 1 do, and those of others may."""
    return kind.module.partition(".")[0] != "torch" or kind.module.startswith("torch.distributed._shard.")


def _meta(builder: Builder, dtype: object, shape: object, stride: object, grad: object) -> TensorInfo:
    sizes, steps = as_tuple(shape), as_tuple(stride)
    name, geometry = dtype_of(dtype), measure(sizes, steps)
    if name.startswith(_QUANTISED):
        raise TypeError
    return _with_grad(TensorInfo(name, geometry.sizes, geometry.numel * NBYTES[name]), grad)


def _from_cpu(builder: Builder, data: object, dtype: object, device: object, grad: object) -> TensorInfo:
    if type(data) is not TensorInfo or not isinstance(device, str) or dtype_of(dtype).startswith(_QUANTISED):
        raise TypeError
    return _with_grad(data._replace(dtype=dtype_of(dtype)), grad)


def _from_numpy(builder: Builder, data: object, dtype: object, device: object, grad: object) -> object:
    raise CantTell if isinstance(data, Opaque) else TypeError


def _nested(builder: Builder, buffer: object, sizes: object, strides: object, offsets: object) -> object:
    raise CantTell if {type(part) for part in (buffer, sizes, strides, offsets)} == {TensorInfo} else TypeError


def _wrapper(
    builder: Builder, kind: object, dtype: object, shape: object, stride: object, first: object, layout: object,
    device: object, grad: object,
) -> object:  # fmt: skip
    if type(kind) is not Global or not isinstance(device, str) or type(grad) is not bool or layout not in _LAYOUTS:
        raise TypeError
    dtype_of(dtype), measure(as_tuple(shape), as_tuple(stride))
    raise CantTell


def _sparse(builder: Builder, layout: object, data: object) -> TensorInfo:
    """A sparse tensor by its dense shape; its bytes are those of indices and values."""
    parts = as_tuple(data)
    tensors = [part for part in parts if type(part) is TensorInfo]
    count = _COO_TENSORS if layout == "torch.sparse_coo" else _COMPRESSED_TENSORS
    if type(layout) is not Named or layout in _DENSE or tensors != list(parts[:count]) or len(tensors) != count:
        raise TypeError
    *indices, values = tensors
    shape, *coalesced = parts[count:] or (None,)
    sizes = tuple(filter(is_size, as_tuple(shape)))
    if len(sizes) < len(as_tuple(shape)) or not all(index.dtype in _INDICES for index in indices):
        raise TypeError
    if prod(sizes) > MAX_SIZE:
        raise FormatError(f"a sparse tensor of the shape {sizes!r:.60} has more elements than fit in 63 bits")
    if layout == "torch.sparse_coo":
        fits = _fit_coordinates(sizes, indices[0].shape, values.shape) and coalesced in ([], [None], [True], [False])
    else:
        fits = not coalesced and bool(values.shape)
    if not fits:
        raise TypeError
    return TensorInfo(values.dtype, sizes, sum(part.nbytes for part in tensors))


def _fit_coordinates(sizes: tuple[int, ...], indices: tuple[int, ...], values: tuple[int, ...]) -> bool:
    """Whether indices, a row for each sparse dimension, belong to values, whose further dimensions are dense."""
    if len(indices) != _MATRIX or not values:
        return False
    sparse, count = indices
    return count == values[0] and len(sizes) == sparse + len(values) - 1 and sizes[sparse:] == values[1:]


def _device(builder: Builder, kind: object, index: object = None) -> str:
    name = str(kind) if index is None else f"{kind}:{index}"
    if type(kind) is not str or not LOCATION.fullmatch(name):
        raise FormatError(f"{name!r:.40} is not a device")
    return Named(name)


def _size(builder: Builder, sizes: object = ()) -> tuple[object, ...]:
    numbers = [int(n) for n in as_tuple(sizes) if isinstance(n, int) and -MAX_SIZE <= n <= MAX_SIZE]
    if len(numbers) < len(as_tuple(sizes)):
        raise TypeError
    return tuple(numbers)


def _layout(builder: Builder, name: object) -> str:
    if type(name) is not str or name not in _LAYOUTS:
        raise TypeError
    return Named(name)


KNOWN: dict[tuple[str, str], Constructor] = {
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
"""What becomes a plain value, by module and name."""

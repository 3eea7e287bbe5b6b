"""What the objects in a torch pickle stand for: storages, and tensors that view them.

A storage is a `TensorInfo` of one dimension; a tensor keeps the storage's name, place and size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.limits import DEFAULT_LIMITS, Limits
from ckpt_rules.readers.damage import ProblemLog
from ckpt_rules.readers.pickle.plain_objects import PlainBuilder
from ckpt_rules.readers.pickle.stack import Global
from ckpt_rules.readers.scalars import decode_scalar
from ckpt_rules.readers.torch.calls import KNOWN, LOCATION
from ckpt_rules.readers.torch.types import (
    NBYTES,
    STORAGE_DTYPES,
    Geometry,
    as_tuple,
    is_dtype,
    is_size,
    is_type,
    measure,
)

MAX_GEOMETRIES = 10_000
_ID_PARTS, _LEGACY_ID_PARTS, _VIEW_PARTS = 5, 6, 3

_new_tensor = cast("Callable[[tuple[object, ...]], TensorInfo]", partial(tuple.__new__, TensorInfo))


class Stored(NamedTuple):
    """Where a storage lies in the file. `offset` is None where its bytes can't be read in place; -1 bytes: unknown."""

    offset: int | None
    nbytes: int


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
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(limits)
        self.known = KNOWN
        self.storages: dict[str, TensorInfo] = {}
        self._locate, self._read, self._log = locate, read, log
        self._big_endian = byteorder == "big"
        self._legacy = legacy
        self._geometries: dict[tuple[object, object], Geometry] = {}

    def build(self, function: object, args: tuple[object, ...]) -> object:
        """The inert value of a call; neither dtypes nor types of storages and tensors are called."""
        if type(function) is Global and (is_dtype(function) or is_type(function)):
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
        if type(location) is not str or not LOCATION.fullmatch(location):
            raise FormatError(f"the storage '{key}' lies on {location!r:.40}, which is not a device")
        storage = self._storage(key, dtype, numel)
        return storage if not view or view[0] is None else _part_of(storage, view[0])

    def _storage(self, key: str, dtype: str, numel: int) -> TensorInfo:
        known = self.storages.get(key)
        if known is not None and (known.nbytes or self._legacy):
            # Whatever type it is referred to by later, torch keeps the first, but for one without bytes.
            return known if known.nbytes else known._replace(dtype=dtype)
        nbytes = numel * NBYTES[dtype]
        stored = self._locate(key)
        if stored is None:
            message = f"the storage '{key}' of {nbytes:,} bytes is not in the file"
            self._log.add("storage-missing", message, where=key)
        elif stored.nbytes not in (nbytes, -1):
            message = f"the storage '{key}' holds {stored.nbytes:,} bytes where its tensors need {nbytes:,}"
            self._log.add("storage-size", message, stored.offset, key)
        offset = stored.offset if stored else None
        storage = self.storages[key] = _new_tensor((dtype, (numel,), nbytes, offset, key, nbytes, None, 0, None))
        return storage

    def tensor(
        self, storage: object, first: object, shape: object, stride: object, dtype: str | None = None
    ) -> TensorInfo:
        """A strided view of a storage; `first` counts elements."""
        if type(storage) is not TensorInfo or storage.storage is None or not is_size(first):
            raise TypeError
        sizes, numel, reach, strides = self._geometry(shape, stride)
        dtype = dtype or storage.dtype
        itemsize = NBYTES[dtype]
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
        place = (storage.offset, storage.storage, storage.storage_nbytes)
        return _new_tensor((dtype, sizes, numel * itemsize, *place, value, first, strides))

    def _geometry(self, shape: object, stride: object) -> Geometry:
        sizes, steps = as_tuple(shape), as_tuple(stride)
        known = self._geometries.get((sizes, steps))
        if known is None or not {*map(type, sizes), *map(type, steps)} <= {int}:  # True and 1.0 are equal to 1
            if len(self._geometries) >= MAX_GEOMETRIES:
                self._geometries.clear()
            known = self._geometries[sizes, steps] = measure(sizes, steps)
        return known


def _part_of(storage: TensorInfo, view: object) -> TensorInfo:
    """The part of a storage that a legacy file gives a name of its own: (key, first element, elements)."""
    if type(view) is not tuple or len(view) != _VIEW_PARTS or not all(map(is_size, view[1:])):
        raise FormatError(f"a view of the storage '{storage.storage}' is not described by a name and two sizes")
    _, first, numel = view
    itemsize = NBYTES[storage.dtype]
    if (first + numel) * itemsize > storage.nbytes:
        raise FormatError(f"a view of the storage '{storage.storage}' passes its end")
    offset = None if storage.offset is None else storage.offset + first * itemsize
    return storage._replace(shape=(numel,), nbytes=numel * itemsize, offset=offset)

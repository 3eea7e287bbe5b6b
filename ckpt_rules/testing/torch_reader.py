"""Load what `torch.save` wrote, without torch, so that tests can edit it. Only the classes of state dictionaries exist."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from ckpt_rules.testing.tensor import DTYPES, Tensor
from ckpt_rules.testing.torch_writer import LEGACY_MAGIC, row_major

Storage = tuple[str, bytes]
_DTYPE_OF = {storage: dtype for dtype, (storage, *_) in DTYPES.items()}


def read_torch(path: Path) -> Any:
    """The saved object; tensors are the kit's. ValueError where it holds anything but plain values and tensors."""
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    return _read_legacy(path)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        program = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = program.removesuffix("data.pkl")
        return _Unpickler(io.BytesIO(archive.read(program)), lambda key, _: archive.read(f"{root}data/{key}")).load()


def _read_legacy(path: Path) -> Any:
    """The storages follow the pickle that needs them: it is read once with zeros in their place, then for good."""
    with path.open("rb") as file:
        magic = _plain(file)
        if magic != LEGACY_MAGIC:
            raise ValueError(f"{path.name} is not a torch file")
        for _ in ("protocol", "system"):
            _plain(file)
        start = file.tell()
        sizes: dict[str, int] = {}

        def zeros(key: str, nbytes: int) -> bytes:
            sizes[key] = nbytes
            return bytes(nbytes)

        _Unpickler(file, zeros).load()
        found = _storages(file, _plain(file), sizes)
        file.seek(start)
        return _Unpickler(file, lambda key, _: found[key]).load()


def _plain(file: io.BufferedReader) -> Any:
    """The next pickle, which holds no tensors."""
    return _Unpickler(file, lambda *_: b"").load()


def _storages(file: io.BufferedReader, keys: list[str], sizes: Mapping[str, int]) -> dict[str, bytes]:
    found = {}
    for key in keys:
        file.read(struct.calcsize("<q"))
        found[key] = file.read(sizes[key])
    return found


class _Unpickler(pickle.Unpickler):
    """Knows tensors, their storages and plain containers; every other global is refused, so nothing can run."""

    def __init__(self, file: Any, storage: Callable[[str, int], bytes]) -> None:
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPE_OF:
            return _DTYPE_OF[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("__builtin__", "bytes"): bytes,
            ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),
        }
        return known.get((module, name)) or _refuse(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, key, _, numel, *_ = pid
        return dtype, self._storage(key, numel * DTYPES[dtype][3])


def _rebuild_tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> Tensor:
    if any(size > 1 and have != want for size, have, want in zip(shape, strides, row_major(shape), strict=True)):
        raise ValueError(f"without torch the kit loads contiguous tensors only, not one of strides {tuple(strides)}")
    dtype, data = storage
    size = DTYPES[dtype][3]
    return Tensor(dtype, tuple(shape), data[offset * size : (offset + prod(shape)) * size])


def _refuse(module: str, name: str) -> NoReturn:
    raise ValueError(f"the file asks for {module}.{name}; without torch the kit loads plain values and tensors only")

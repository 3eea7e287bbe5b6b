"""Write what `torch.save` writes, without torch: a pickle of protocol 2, and the storages, in a zip or one after another.

`torch.load(weights_only=True)` reads the files. They hold None, booleans, numbers, strings, bytes, lists, tuples,
dictionaries and the kit's tensors; anything else is refused.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ckpt_rules.testing.tensor import DTYPES, Tensor

ALIGNMENT = 64
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001


def write_torch(path: Path, value: object, *, legacy: bool = False) -> None:
    """Write a file as `torch.save` does; `legacy` in the format from before torch 1.6."""
    pickler = _Pickler(legacy=legacy)
    program = pickler.dump(value)
    if legacy:
        _write_legacy(path, program, pickler.storages)
    else:
        _write_zip(path, program, pickler.storages)


def _write_zip(path: Path, program: bytes, storages: Mapping[str, Tensor]) -> None:
    root = path.name.rpartition(".")[0] or path.name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{root}/data.pkl", program)
        _add(archive, f"{root}/.format_version", b"1")
        _add(archive, f"{root}/.storage_alignment", str(ALIGNMENT).encode())
        _add(archive, f"{root}/byteorder", b"little")
        for key, tensor in storages.items():
            _add(archive, f"{root}/data/{key}", tensor.data)
        _add(archive, f"{root}/version", b"3\n")
        _add(archive, f"{root}/.data/serialization_id", b"0" * 40)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add an entry whose data starts at a multiple of 64 bytes, padded by an extra field `FB` as torch pads it."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    local_header = 30 + len(name.encode()) + 4
    start = archive.fp.tell() + local_header  # type: ignore[union-attr]
    padding = -start % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


def _write_legacy(path: Path, program: bytes, storages: Mapping[str, Tensor]) -> None:
    system = {
        "protocol_version": LEGACY_PROTOCOL,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    with path.open("wb") as file:
        for header in (LEGACY_MAGIC, LEGACY_PROTOCOL, system):
            pickle.dump(header, file, protocol=2)
        file.write(program)
        pickle.dump(list(storages), file, protocol=2)
        for tensor in storages.values():
            file.write(struct.pack("<q", prod(tensor.shape)) + tensor.data)


class _Pickler:
    """Emits the opcodes for one value. No memo: objects that occur twice are written twice, storages are shared."""

    def __init__(self, *, legacy: bool) -> None:
        self.legacy = legacy
        self.storages: dict[str, Tensor] = {}
        self._keys: dict[int, str] = {}
        self._out = bytearray()

    def dump(self, value: object) -> bytes:
        self._out += b"\x80\x02"
        self._save(value)
        return bytes(self._out) + b"."

    def _save(self, value: object) -> None:  # noqa: C901 - one line for each type
        match value:
            case None:
                self._out += b"N"
            case bool():
                self._out += b"\x88" if value else b"\x89"
            case int():
                self._save_int(value)
            case float():
                self._out += b"G" + struct.pack(">d", value)
            case str():
                self._save_str(value)
            case bytes():
                self._call("_codecs", "encode", (value.decode("latin-1"), "latin1"))
            case tuple():
                self._save_tuple(value)
            case list():
                self._out += b"]("
                for item in value:
                    self._save(item)
                self._out += b"e"
            case Mapping():
                self._save_mapping(value)
            case Tensor():
                self._save_tensor(value)
            case _:
                raise TypeError(f"without torch the kit can't pickle a {type(value).__name__}: {value!r}")

    def _save_int(self, value: int) -> None:
        if -(2**31) <= value < 2**31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            data = pickle.encode_long(value)
            self._out += b"\x8a" + bytes([len(data)]) + data

    def _save_str(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        self._out += b"X" + struct.pack("<I", len(data)) + data

    def _save_tuple(self, value: tuple[Any, ...]) -> None:
        self._out += b"("
        for item in value:
            self._save(item)
        self._out += b"t"

    def _save_mapping(self, value: Mapping[Any, Any]) -> None:
        self._out += b"}("
        for key, item in value.items():
            self._save(key)
            self._save(item)
        self._out += b"u"

    def _save_tensor(self, tensor: Tensor) -> None:
        self._global("torch._utils", "_rebuild_tensor_v2")
        self._out += b"("
        self._save_storage(tensor)
        for argument in (0, tensor.shape, row_major(tensor.shape), False):
            self._save(argument)
        self._call("collections", "OrderedDict", ())
        self._out += b"tR"

    def _save_storage(self, tensor: Tensor) -> None:
        key = self._keys.setdefault(id(tensor), str(len(self._keys)))
        self.storages[key] = tensor
        self._out += b"("
        self._save("storage")
        self._global("torch", DTYPES[tensor.dtype][0])
        for part in (key, "cpu", prod(tensor.shape), *([None] if self.legacy else [])):
            self._save(part)
        self._out += b"tQ"

    def _global(self, module: str, name: str) -> None:
        self._out += f"c{module}\n{name}\n".encode()

    def _call(self, module: str, name: str, arguments: tuple[object, ...]) -> None:
        self._global(module, name)
        self._save(arguments)
        self._out += b"R"


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous tensor."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))

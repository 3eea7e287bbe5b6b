"""Load and save the three file formats of a checkpoint, with torch where it is installed, and without otherwise."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ckpt_rules.testing.tensor import DTYPES, Tensor, holds_tensor
from ckpt_rules.testing.torch_reader import read_torch
from ckpt_rules.testing.torch_writer import write_torch

ZIP_MAGIC = b"PK\x03\x04"


def has_torch() -> bool:
    """Whether torch and safetensors are installed."""
    return all(_is_installed(name) for name in ("torch", "safetensors"))


def load_torch(path: Path, *, with_torch: bool | None = None) -> Any:
    """What a file by `torch.save` holds. Nothing in it runs; NumPy arrays are let through, other classes are not."""
    if not _use_torch(with_torch):
        return read_torch(path)
    import torch
    from torch.serialization import safe_globals

    with safe_globals(_numpy_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def save_torch(path: Path, value: object, *, legacy: bool = False, with_torch: bool | None = None) -> None:
    """Write as `torch.save` does; `legacy` in the format from before torch 1.6."""
    if not _use_torch(with_torch, value):
        write_torch(path, value, legacy=legacy)
        return
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=not legacy)


def is_legacy(path: Path) -> bool:
    """Whether a torch file is in the format from before torch 1.6."""
    with path.open("rb") as file:
        return file.read(4) != ZIP_MAGIC


def load_safetensors(path: Path, *, with_torch: bool | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors by name, and the `__metadata__`."""
    header, data = split_safetensors(path.read_bytes())
    metadata = dict(header.pop("__metadata__", {}))
    if not _use_torch(with_torch):
        return {name: _tensor(entry, data) for name, entry in header.items()}, metadata
    from safetensors.torch import load_file

    return load_file(path), metadata


def save_safetensors(
    path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, with_torch: bool | None = None
) -> None:
    """Write as `safetensors.torch.save_file` does: wide dtypes first, then by name."""
    if not _use_torch(with_torch, tensors):
        path.write_bytes(_safetensors(tensors, metadata))
        return
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as a dictionary, and the bytes of the tensors."""
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: Mapping[str, Any], data: bytes) -> bytes:
    """A safetensors file of a header, padded to a multiple of 8 bytes, and the bytes of the tensors."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def save_json(path: Path, value: object) -> None:
    """Write JSON, indented by two."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def _numpy_globals() -> list[Any]:
    if not _is_installed("numpy"):
        return []
    import numpy as np
    from numpy._core import multiarray

    return [multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]  # noqa: SLF001


def nbytes(tensor: Any) -> int:
    """Bytes that a tensor's elements take."""
    return int(tensor.nbytes)


def _is_installed(name: str) -> bool:
    # A test that hides torch puts None in its place, on which find_spec raises.
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None


def _use_torch(wanted: bool | None, value: object = None) -> bool:
    """As asked; where nothing is asked, torch if it is installed and is able to write the value."""
    return has_torch() and not holds_tensor(value) if wanted is None else wanted


def _safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = bytearray()
    for name, tensor in sorted(tensors.items(), key=lambda item: (-DTYPES[item[1].dtype][3], item[0])):
        offsets = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": DTYPES[tensor.dtype][1], "shape": list(tensor.shape), "data_offsets": offsets}
        data += tensor.data
    return join_safetensors(header, bytes(data))


def _tensor(entry: Mapping[str, Any], data: bytes) -> Tensor:
    dtype = next(name for name, (_, theirs, *_) in DTYPES.items() if theirs == entry["dtype"])
    start, end = entry["data_offsets"]
    return Tensor(dtype, tuple(entry["shape"]), data[start:end])

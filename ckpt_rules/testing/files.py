"""Load and save the three file formats of a checkpoint, with torch where it is installed, and without otherwise."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ZIP_MAGIC = b"PK\x03\x04"


def has_torch() -> bool:
    """Whether torch and safetensors are installed."""
    return find_spec("torch") is not None and find_spec("safetensors") is not None


def load_torch(path: Path) -> Any:
    """What a file by `torch.save` holds. Nothing in it runs; NumPy arrays are let through, other classes are not."""
    import torch
    from torch.serialization import safe_globals

    with safe_globals(_numpy_globals()):
        return torch.load(path, map_location="cpu", weights_only=True)


def save_torch(path: Path, value: object, *, legacy: bool = False, with_torch: bool | None = None) -> None:
    """Write as `torch.save` does; `legacy` in the format from before torch 1.6."""
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=not legacy)


def is_legacy(path: Path) -> bool:
    """Whether a torch file is in the format from before torch 1.6."""
    with path.open("rb") as file:
        return file.read(4) != ZIP_MAGIC


def load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors by name, and the `__metadata__`."""
    from safetensors.torch import load_file

    header, _ = split_safetensors(path.read_bytes())
    return load_file(path), dict(header.get("__metadata__", {}))


def save_safetensors(
    path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None, *, with_torch: bool | None = None
) -> None:
    """Write as `safetensors.torch.save_file` does."""
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
    if find_spec("numpy") is None:
        return []
    import numpy as np
    from numpy._core import multiarray

    return [multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.uint32))]  # noqa: SLF001


def nbytes(tensor: Any) -> int:
    """Bytes that a tensor's elements take."""
    return int(tensor.nbytes)

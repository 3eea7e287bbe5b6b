"""Files of a save as trees of fields, and back."""

from __future__ import annotations

import json
import os
import pickle
from typing import Any, Self

_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_NO_TREE = ("training_args.bin",)
METADATA = ".metadata"


def has_fields(path: str) -> bool:
    """Whether a file is one of fields."""
    name = os.path.basename(path)
    return name not in _NO_TREE and (name.endswith((*_TORCH, ".json", ".safetensors")) or name == METADATA)


def read(path: str) -> Any:
    """What a file holds."""
    import torch

    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    if path.endswith(".safetensors"):
        return _safetensors(path)
    if os.path.basename(path) == METADATA:
        with open(path, "rb") as file:
            return _fields(pickle.load(file))
    return torch.load(path, weights_only=False)


def write(path: str, tree: Any) -> None:
    """Put it back; raises where the format can't hold it."""
    import torch

    if path.endswith(".json"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(tree, file, indent=2)
    elif path.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in tree["tensors"].items()}, path, tree["metadata"])
    elif os.path.basename(path) == METADATA:
        with open(path, "wb") as file:
            pickle.dump(_objects(tree), file)
    else:
        torch.save(tree, path)


def _safetensors(path: str) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {"tensors": {name: file.get_tensor(name) for name in file.keys()}, "metadata": file.metadata()}  # noqa: SIM118


_CLASS = "(class)"


def _fields(value: Any) -> Any:
    """The metadata of DCP with its objects as mappings, so that each field can be edited."""
    import dataclasses

    import torch

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: _fields(getattr(value, f.name, None)) for f in dataclasses.fields(value)}
        return {_CLASS: type(value), **found}
    if isinstance(value, dict):
        return {k if isinstance(k, str) else _Index(k): _fields(v) for k, v in value.items()}
    if isinstance(value, torch.Size):
        return {_CLASS: torch.Size, "sizes": tuple(value)}
    return [_fields(v) for v in value] if type(value) is list else value


class _Index(str):
    """An index into the storage, as a key that can be written down."""

    __slots__ = ("index",)

    def __new__(cls, index: Any) -> Self:
        made = super().__new__(cls, f"{getattr(index, 'fqn', index)}@{getattr(index, 'offset', '')}")
        made.index = index
        return made


def _objects(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        inner = {k.index if isinstance(k, _Index) else k: _objects(v) for k, v in value.items()}
        kind = inner.pop(_CLASS, None)
        if kind is None:
            return inner
        if kind is torch.Size:
            return torch.Size(inner["sizes"])
        made = object.__new__(kind)
        for name, field in inner.items():
            object.__setattr__(made, name, field)
        return made
    return [_objects(v) for v in value] if type(value) is list else value

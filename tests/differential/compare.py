"""Where what we read differs from what the real loader read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ckpt_rules.facts.tensors import Opaque, TensorInfo
from ckpt_rules.readers.pickle.bounded import RECURSION
from ckpt_rules.readers.pickle.stack import Global
from ckpt_rules.readers.safetensors.header import DTYPES

MAX_DEPTH = 100


def difference(file_format: str, mine: Any, other: Any) -> str:
    """The first difference, '' where there is none."""
    if file_format == "safetensors":
        return _safetensors(mine, other)
    return _value(mine, other, "value", 0)


def _safetensors(mine: Any, other: Any) -> str:
    tensors, metadata = mine
    read = {name: (t.dtype, t.shape, t.nbytes) for name, t in tensors.items()}
    loaded = {name: (DTYPES[dtype], shape, nbytes) for name, (dtype, shape, nbytes) in other[0].items()}
    if read != loaded:
        return f"tensors {read!r:.200} where the loader has {loaded!r:.200}"
    return "" if dict(metadata) == other[1] else f"metadata {metadata!r:.200} where the loader has {other[1]!r:.200}"


def _value(mine: Any, other: Any, at: str, depth: int) -> str:
    if depth > MAX_DEPTH or (isinstance(mine, Opaque) and (mine.type == RECURSION or _is_exotic(other))):
        return ""
    if isinstance(other, torch.Tensor):
        return _tensor(mine, other, at)
    if isinstance(other, dict):
        return _dict(mine, other, at, depth)
    if isinstance(other, list | tuple):
        return _sequence(mine, other, at, depth)
    return "" if _is_same(mine, other) else f"{at}: {mine!r:.80} where the loader has {other!r:.80}"


def _is_same(mine: Any, other: Any) -> bool:
    """Whether what stands for a value without parts is what the loader made."""
    if isinstance(other, torch.UntypedStorage | torch.storage.TypedStorage):
        return isinstance(mine, TensorInfo)
    if isinstance(mine, Global):
        return _is_exotic(other)
    if isinstance(other, bytearray):
        return isinstance(mine, Opaque) or (isinstance(mine, bytes) and bytes(mine) == bytes(other))
    if isinstance(other, set | frozenset):
        return isinstance(mine, set | frozenset) and len(mine) == len(other)
    if isinstance(other, torch.device | torch.layout):
        return isinstance(mine, str) and mine == str(other)
    return repr(mine) == repr(other) and type(mine) is type(other)


def _tensor(mine: Any, other: torch.Tensor, at: str) -> str:
    if not isinstance(mine, TensorInfo):
        return f"{at}: {mine!r:.80} where the loader has a tensor"
    read = (f"torch.{mine.dtype}", mine.shape)
    loaded = (str(other.dtype), tuple(other.shape))
    if read != loaded:
        return f"{at}: tensor {read} where the loader has {loaded}"
    if other.is_sparse or other.is_quantized or other.is_meta or other.shape or mine.value is None:
        return ""
    number = other.item()
    return (
        "" if repr(number) == repr(mine.value) else f"{at}: the number {mine.value!r} where the loader has {number!r}"
    )


def _dict(mine: Any, other: Mapping[Any, Any], at: str, depth: int) -> str:
    if not isinstance(mine, dict) or len(mine) != len(other):
        return f"{at}: {mine!r:.80} where the loader has {other!r:.80}"
    for (my_key, my_part), (key, part) in zip(mine.items(), other.items(), strict=True):
        wrong = _value(my_key, key, f"{at}: key", depth + 1) or _value(my_part, part, f"{at}.{key!s:.20}", depth + 1)
        if wrong:
            return wrong
    return ""


def _sequence(mine: Any, other: Any, at: str, depth: int) -> str:
    kind = list if isinstance(other, list) else tuple
    if not isinstance(mine, kind) or isinstance(mine, TensorInfo) or len(mine) != len(other):
        return f"{at}: {mine!r:.80} where the loader has {other!r:.80}"
    parts = enumerate(zip(mine, other, strict=True))
    return next(filter(None, (_value(my_part, part, f"{at}[{i}]", depth + 1) for i, (my_part, part) in parts)), "")


def _is_exotic(value: object) -> bool:
    """Whether a value is neither plain data nor a tensor, so that an opaque object may stand for it."""
    plain = (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        dict,
        list,
        tuple,
        set,
        frozenset,
        torch.Tensor,
        type(None),
    )
    return not isinstance(value, plain)

"""Sound files of each format, small and made again by their real writers: what mutants are made from."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import warnings
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from safetensors.torch import save

from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.readers.pickle.enclosed import Memory
from ckpt_rules.readers.torch.file import read_torch_file

_IN_LEGACY = ("quantised", "conjugate", "attributes", "gradients", "layout")
_LEGACY_PICKLES, _COUNT_NBYTES = 5, 8
FORMATS = ("safetensors", "zip", "legacy", "json")


@dataclass(frozen=True, slots=True)
class Seed:
    """A sound file."""

    name: str
    data: bytes


@cache
def seeds(file_format: str) -> tuple[Seed, ...]:
    """The seeds of a format; the same bytes on every machine."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if file_format == "safetensors":
        return tuple(Seed(name, save(tensors, metadata)) for name, (tensors, metadata) in _tensor_files().items())
    if file_format == "json":
        return tuple(Seed(name, text.encode()) for name, text in _texts().items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is quantised or sparse is not for ever
        objects: dict[str, Any] = _objects()
    if file_format == "zip":
        return tuple(Seed(name, _saved(value)) for name, value in objects.items())
    # torch.save fails, or writes what torch.load refuses, where something is newer than the old format.
    objects["unusual"] = {k: v for k, v in objects["unusual"].items() if k in _IN_LEGACY}
    return tuple(Seed(name, _saved(value, legacy=True)) for name, value in objects.items() if name != "new-dtypes")


def _saved(value: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return _with_lasting_keys(stream.getvalue()) if legacy else stream.getvalue()


@cache
def split_legacy(data: bytes) -> tuple[bytes, ...]:
    """The five pickles of a sound legacy file, and the storages behind them."""
    parts, at = [], 0
    for _ in range(_LEGACY_PICKLES):
        *_, (_, _, stop) = pickletools.genops(data[at:])
        parts.append(data[at : at + stop + 1])
        at += stop + 1
    return (*parts, data[at:])


def _with_lasting_keys(data: bytes) -> bytes:
    """A legacy file with its storages numbered: torch.save names and sorts them by their addresses in memory."""
    *heads, content, listed, _ = split_legacy(data)
    blocks = {
        t.storage: data[t.offset - _COUNT_NBYTES :][: _COUNT_NBYTES + t.storage_nbytes] for t in _tensors_in(data)
    }
    keys = sorted(pickle.loads(listed), key=lambda key: content.index(key.encode()))
    for number, key in enumerate(keys):
        content = content.replace(_text(key), _text(f"{number:04}"))
    listed = pickle.dumps([f"{number:04}" for number in range(len(keys))], protocol=2)
    return b"".join((*heads, content, listed, *map(blocks.__getitem__, keys)))


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _tensors_in(data: bytes) -> list[TensorInfo]:
    """The tensors of a sound legacy file, those of our reader: torch.load tells no offsets."""
    found, left = [], [read_torch_file(Memory(data), "seed.pt").value]
    while left:
        value = left.pop()
        if isinstance(value, TensorInfo):
            found.append(value)
        elif isinstance(value, dict | list | tuple):
            left.extend(value.values() if isinstance(value, dict) else value)
    return found


def _dtypes(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.ones(2, 3).to(getattr(torch, name)) for name in names}


def _weights() -> dict[str, torch.Tensor]:
    return {"embed.weight": torch.randn(5, 3), "norm.bias": torch.zeros(3), "steps": torch.tensor(7)}


def _trained() -> dict[str, object]:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000, "_growth_tracker": 1},
        "rng": torch.get_rng_state()[:64].clone(),
        "epoch": 3,
    }


def _views() -> dict[str, torch.Tensor]:
    whole = torch.arange(24.0)
    matrix = whole.view(4, 6)
    return {"whole": whole, "rows": matrix[1:3], "columns": matrix[:, 2:4], "turned": matrix.t(), "one": whole[5]}


def _nested() -> dict[object, object]:
    shared = [1, 2]
    return {
        "lists": [[], [[]], [shared, shared], [1, -1, 255, 256, 65536, 2**40, -(2**70)]],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "texts": ["", "é", "\U0001f600", "x" * 300],
        "plain": [None, True, False, 0.5, float("inf")],
        7: {(1, "a"): {"deep": {"deeper": [torch.tensor(1.5)]}}},
    }


def _typed() -> dict[str, object]:
    return {
        "ordered": OrderedDict(a=1, b=torch.ones(1)),
        "counter": Counter({2: 3, 5: 1}),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "set": {1, 2},
        "complex": 1 + 2j,
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"abc"),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def _unusual() -> dict[str, object]:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.note = "tied"
    return {
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.sparse_csr_tensor(torch.tensor([0, 1, 2]), torch.tensor([0, 1]), torch.ones(2), (2, 2)),
        "quantised": torch.quantize_per_tensor(torch.ones(2, 2), 0.5, 1, torch.qint8),
        "channels": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "meta": torch.ones(2, device="meta"),
        "attributes": weight,
        "gradients": torch.ones(2, requires_grad=True),
        "storage": torch.ones(3).untyped_storage(),
        "layout": torch.sparse_csr,
    }


def _objects() -> dict[str, object]:
    return {
        "weights": _weights(),
        "dtypes": _dtypes("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "bfloat16"),
        "new-dtypes": _dtypes("float8_e4m3fn", "float8_e5m2", "uint16", "uint64", "complex64"),
        "training": _trained(),
        "views": _views(),
        "nested": _nested(),
        "unusual": _unusual(),
        "empty": {"none": torch.empty(0), "flat": torch.empty(3, 0), "nothing": {}},
        "typed": _typed(),
        "scalar": torch.tensor(2.5),
        "many": {
            "names": [f"layer.{i}" for i in range(300)],
            "tensors": [torch.full((1,), float(i)) for i in range(3)],
        },
    }


def _tensor_files() -> dict[str, tuple[dict[str, torch.Tensor], dict[str, str] | None]]:
    return {
        "weights": (_weights(), {"format": "pt"}),
        "dtypes": (_dtypes("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"), None),
        "new-dtypes": (_dtypes("bfloat16", "float8_e4m3fn", "float8_e5m2", "uint16", "uint64"), None),
        "empty": ({"none": torch.empty(0), "flat": torch.empty(3, 0)}, None),
        "nothing": ({}, None),
        "scalar": ({"é.weight": torch.tensor(2.5)}, {"über": "\U0001f600"}),
        "many": ({f"layer.{i}.weight": torch.full((i % 3, 2), float(i)) for i in range(60)}, None),
    }


def _texts() -> dict[str, str]:
    state = {
        "epoch": 1.5, "global_step": 12, "best_metric": None, "is_local_process_zero": True, "log_history": [
            {"loss": 1e-3, "learning_rate": 5e-05, "step": 1}, {"loss": float("nan"), "step": 2},
        ],
        "text": 'a "quoted" \\ line\né \U0001f600', "large": 2**70, "empty": [{}, [], ""],
    }  # fmt: skip
    return {
        "state": json.dumps(state, indent=2),
        "dense": json.dumps(state, separators=(",", ":"), ensure_ascii=False),
        "index": json.dumps({"metadata": {"total_size": 64}, "weight_map": {"a": "model-1.safetensors", "b": "x"}}),
        "number": "-1.5e+10",
    }

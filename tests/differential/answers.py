"""What our readers say of a file, and what the real loaders say."""

from __future__ import annotations

import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.readers.json.file import read_json
from ckpt_rules.readers.safetensors.file import read_safetensors
from ckpt_rules.readers.torch.file import read_torch_file
from ckpt_rules_safety.unsafe_load import refused_by_default
from tests.differential.seeds import FORMATS

_TWICE = "twice, and readers differ"
_SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Bytes:
    """A file in memory, as readers see files."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class Answer(NamedTuple):
    """One reading of a file.

    faults: code and message of each reason to refuse it; none where it is accepted
    value:  what was read
    """

    faults: tuple[tuple[str, str], ...]
    value: Any = None


def ours(file_format: str, data: bytes) -> Answer:
    """What our reader finds, and what the rules would call an error or a file that `torch.load` refuses by default."""
    if file_format == "safetensors":
        file = read_safetensors(Bytes(data), "model.safetensors")
        return Answer(_fatal(file.problems), (file.tensors, file.metadata))
    if file_format == "json":
        text = read_json(Bytes(data), "config.json")
        return Answer(_fatal(text.problems), text.value)
    saved = read_torch_file(Bytes(data), "state.pt")
    refusal = refused_by_default(saved)
    faults = _fatal(saved.problems)
    if refusal:
        faults = (*faults, ("unsafe-load", refusal.message))
    return Answer(faults, saved.value)


def theirs(file_format: str, data: bytes) -> Answer:
    """What the format's own loader does with the bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _attempt(_LOADERS[file_format], data)


def theirs_on_disk(file_format: str, data: bytes) -> Answer:
    """The same from a path, where torch reads storages another way."""
    if file_format not in ("zip", "legacy"):
        return theirs(file_format, data)
    with tempfile.NamedTemporaryFile(dir=_SCRATCH, suffix=".pt") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.write(data)
        file.flush()
        return _attempt(_load_torch, file.name)


def _fatal(problems: tuple[ReadProblem, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((p.code, p.message) for p in problems if p.fatal)


def _attempt(load: Callable[[Any], Any], argument: object) -> Answer:
    try:
        return Answer((), load(argument))
    except Exception as error:  # noqa: BLE001 - whatever a loader raises is its refusal
        return Answer(((type(error).__name__, str(error)),))


def _load_torch(file: Any) -> Any:
    import torch

    return torch.load(file, weights_only=True, map_location="cpu")


def _load_safetensors(data: bytes) -> Any:
    """Tensors as (dtype of the format, shape, bytes), and the metadata."""
    import safetensors

    # What the format allows but PyTorch has no dtype for is nothing that is wrong with the file.
    tensors = {name: (t["dtype"], tuple(t["shape"]), len(t["data"])) for name, t in safetensors.deserialize(data)}
    with tempfile.NamedTemporaryFile(dir=_SCRATCH) as file:
        file.write(data)
        file.flush()
        with safetensors.safe_open(file.name, "np") as opened:
            if set(opened.keys()) != set(tensors):
                raise AssertionError("safe_open and deserialize disagree")
            return tensors, opened.metadata() or {}


_LOADERS: dict[str, Callable[[bytes], Any]] = {
    "safetensors": _load_safetensors,
    "json": lambda data: json.loads(data.decode()),
    "zip": lambda data: _load_torch(io.BytesIO(data)),
    "legacy": lambda data: _load_torch(io.BytesIO(data)),
}
assert set(_LOADERS) == set(FORMATS)

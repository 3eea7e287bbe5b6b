"""DCP's safetensors form: `shard-0000R-model-…` of each rank, every tensor cut into pieces under one name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    DTYPE_BITS,
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Layout,
    Requirement,
    SafetensorsFile,
    Sign,
    Signature,
    Tells,
    TensorInfo,
    WeightFile,
    Weights,
)

_SHARD = re.compile(r"shard-(\d{5})-model-(\d{5})-of-(\d{5})\.safetensors")
_INFO = "DCP_SHARDING_INFO"


def _files(checkpoint: Checkpoint) -> list[str]:
    return [e.path for e in checkpoint.files.of_format("safetensors") if _SHARD.fullmatch(e.path)]


class DistributedSafetensors(Layout):
    """The model alone, in a file for each rank; there is neither an index nor a `.metadata`."""

    name = "torch-distributed-safetensors"
    title = "safetensors of torch.distributed.checkpoint"
    signatures = (Signature(must=(Sign(_files, Tells.MODEL, most=3),)),)
    resumable: ClassVar[bool] = False
    holds: ClassVar[str] = "weights"

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """A file of each rank below the highest."""
        matches = [m for p in _files(checkpoint) if (m := _SHARD.fullmatch(p))]
        why = "the tensors of the others are pieces, of which it holds the rest"
        if not matches:
            return (
                Requirement(
                    ("shard-00001-model-00001-of-*.safetensors",), "it holds the weights", purposes=TO_RESUME_OR_LOAD
                ),
            )
        numbers = {int(m[1]) for m in matches}
        absent = sorted(set(range(1, max(numbers) + 1)) - numbers)
        tail = f"-model-{matches[0][2]}-of-{matches[0][3]}.safetensors"
        return tuple(Requirement((f"shard-{n:05d}{tail}",), why, purposes=TO_RESUME_OR_LOAD) for n in absent)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Every tensor once, as large as its pieces reach."""
        whole: dict[str, TensorInfo] = {}
        paths = _files(checkpoint)
        problems = []
        for path in paths:
            file = checkpoint.files.safetensors(path)
            problems += [p for p in file.problems if p.fatal]
            offsets = _offsets(file)
            for name, tensor in file.tensors.items():
                whole[name] = _joined(whole.get(name), tensor, offsets.get(name, ()))
        if not paths:
            raise FactUnavailable("there are no model weights")
        return Weights((WeightFile(paths[0], "safetensors", whole, problems=tuple(problems)),))


def _offsets(file: SafetensorsFile) -> dict[str, tuple[int, ...]]:
    """Where each piece starts in its tensor, by the header's metadata."""
    try:
        info = json.loads(file.metadata.get(_INFO, "{}"))
    except (ValueError, RecursionError):
        return {}
    entries = info.items() if isinstance(info, Mapping) else ()
    found = {}
    for name, value in entries:
        saved = value.get("saved_offsets") if isinstance(value, Mapping) else None
        if isinstance(saved, list) and all(isinstance(n, int) and 0 <= n < 2**63 for n in saved):
            found[str(name)] = tuple(saved)
    return found


def _joined(known: TensorInfo | None, piece: TensorInfo, offsets: tuple[int, ...]) -> TensorInfo:
    if len(offsets) != len(piece.shape):
        offsets = (0,) * len(piece.shape)
    reach = tuple(o + s for o, s in zip(offsets, piece.shape, strict=True))
    if known is not None and len(known.shape) == len(reach):
        reach = tuple(map(max, known.shape, reach))
    info = TensorInfo(piece.dtype, reach, 0)
    return info._replace(nbytes=info.numel * DTYPE_BITS.get(piece.dtype, 0) // 8)

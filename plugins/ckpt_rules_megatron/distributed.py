"""Megatron-core's distributed form: `iter_N/` with common.pt, metadata.json and DCP's files; NeMo's `weights/` is the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    DTYPE_BITS,
    Checkpoint,
    FactUnavailable,
    Field,
    Match,
    OptimizerState,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    TensorInfo,
    TrainingState,
    WeightFile,
    Weights,
)
from ckpt_rules_megatron import common

_COMMON, _MARKER, _METADATA = "common.pt", "metadata.json", ".metadata"
_CERTAIN, _LIKELY = 94, 91
_FIELDS = (Field("global_step", ("iteration",), "error", "Megatron then counts from zero, and trains all data again"),)


class MegatronDistributed(common.Megatron):
    """common.pt, metadata.json, .metadata and `.distcp` files, at the top or in NeMo's `weights/`."""

    name = "megatron"
    title = "Megatron-core distributed checkpoint"
    own_loader: ClassVar[tuple[str, ...]] = (_COMMON, "*.distcp", _METADATA, "*train_dataloader_dprank*.pt")

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By common.pt beside DCP's files, or metadata.json that names a backend; NeMo's by its two directories as well."""
        folder = _folder(checkpoint)
        listing = checkpoint.listing
        signs = [f"{folder}{name}" for name in (_COMMON, _MARKER, _METADATA) if listing.get(f"{folder}{name}")]
        if any(e.path.startswith(folder) and e.suffix == ".distcp" for e in listing):
            signs.append(f"{folder}*.distcp")
        if folder and any(e.path.startswith("context/") for e in listing):
            signs.append("context/")
        own = f"{folder}{_COMMON}" in signs or (f"{folder}{_MARKER}" in signs and _names_backend(checkpoint, folder))
        if own and common.NAME.fullmatch(os.path.basename(os.path.abspath(checkpoint.path))):
            signs.append("the directory's name")
        if not own or len(signs) < 2:
            return None
        return Match(_CERTAIN if len(signs) > 2 else _LIKELY, tuple(signs))

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """metadata.json commits the save; DCP's own metadata and the arguments lie beside it."""
        folder, both = _folder(checkpoint), frozenset({"resume", "load"})
        marker = "it is written last; without it Megatron takes the directory for no distributed checkpoint"
        return (
            Requirement((f"{folder}{_MARKER}",), marker, commits=True, purposes=both),
            Requirement(
                (f"{folder}{_METADATA}",), "without it nothing in the .distcp files can be found", purposes=both
            ),
            Requirement(
                (f"{folder}{_COMMON}",), "it holds the iteration, the arguments and the state of the scheduler"
            ),
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model's tensors at their full shapes."""
        path = f"{_folder(checkpoint)}{_METADATA}"
        if checkpoint.listing.get(path) is None:
            raise FactUnavailable(f"there is no {path}", path=path, blocked=True)
        metadata = checkpoint.distributed(path)
        if metadata.problem is not None:
            raise FactUnavailable(f"{path} can't be made sense of", path=path, blocked=True)
        tensors = {}
        for name, tensor in metadata.tensors.items():
            if not name.startswith(("optimizer.", "rng_state", "chained_")):
                info = TensorInfo(tensor.dtype, tensor.shape, 0)
                tensors[name] = info._replace(nbytes=info.numel * DTYPE_BITS.get(tensor.dtype, 0) // 8)
        if not tensors:
            raise FactUnavailable(f"{path} names no model weights", path=path)
        return Weights((WeightFile(path, "dcp", tensors),))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """common.pt."""
        path = f"{_folder(checkpoint)}{_COMMON}"
        if checkpoint.listing.get(path) is None:
            raise FactUnavailable(f"there is no {path}")
        values = checkpoint.contents(path)
        if not isinstance(values, Mapping):
            raise FactUnavailable(f"{path} holds no dictionary", path=path, blocked=True)
        return TrainingState(path, values, _FIELDS)

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """Spread over the ranks in flat pieces that are not put together here."""
        raise FactUnavailable("the optimizer's state is spread over the ranks in flat pieces")

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """Of Megatron's own kind: its counter is compared with the samples consumed."""
        raise FactUnavailable("Megatron's scheduler counts samples, which progress/counters-disagree compares")

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """Part of the optimizer's state."""
        raise FactUnavailable("the loss scale is part of the optimizer's state")

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """Objects of the distributed checkpoint."""
        raise FactUnavailable("random-number states are objects of the distributed checkpoint")


def _folder(checkpoint: Checkpoint) -> str:
    """Where Megatron's files lie: NeMo keeps them in `weights/`."""
    listing = checkpoint.listing
    nemo = any(listing.get(f"weights/{name}") for name in (_COMMON, _MARKER, _METADATA))
    return "weights/" if nemo and listing.get(_COMMON) is None else ""


def _names_backend(checkpoint: Checkpoint, folder: str) -> bool:
    try:
        values = checkpoint.contents(f"{folder}{_MARKER}")
    except FactUnavailable:
        return False
    return isinstance(values, Mapping) and "sharded_backend" in values

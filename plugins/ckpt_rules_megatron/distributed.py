"""Megatron-core's distributed form: `iter_N/` with metadata.json and DCP's files; NeMo's `weights/` is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import ClassVar

from ckpt_rules import (
    DTYPE_BITS,
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Field,
    OptimizerState,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    TensorInfo,
    TrainingState,
    WeightFile,
    Weights,
)
from ckpt_rules_dcp.public import Distributed
from ckpt_rules_megatron import common
from ckpt_rules_megatron.common_state import (
    COMMON,
    MARKER,
    METADATA,
    common_state,
    folder_of,
    generators,
    needs_common_file,
    saves_generators,
    sharded,
)

_STEP = Field(
    "global_step", ("iteration",), Severity.ERROR, "Megatron then counts from zero, and trains all data again"
)
_STOPS = "a resume stops at the missing key, or starts with empty moments where the run says that none are saved"


def _there(checkpoint: Checkpoint, name: str) -> list[str]:
    path = f"{folder_of(checkpoint)}{name}"
    return [path] if checkpoint.listing.get(path) is not None else []


def _data(checkpoint: Checkpoint) -> list[str]:
    folder = folder_of(checkpoint)
    there = any(e.path.startswith(folder) and e.suffix == ".distcp" for e in checkpoint.listing)
    return [f"{folder}*.distcp"] if there else []


def _context(checkpoint: Checkpoint) -> list[str]:
    """NeMo's second directory."""
    there = folder_of(checkpoint) and any(e.path.startswith("context/") for e in checkpoint.listing)
    return ["context/"] if there else []


def _names_backend(checkpoint: Checkpoint) -> list[str]:
    """metadata.json, where it is Megatron's."""
    found = _there(checkpoint, MARKER)
    values = checkpoint.files.contents(found[0]) if found else None
    return found if isinstance(values, Mapping) and "sharded_backend" in values else []


_COMMON, _MARKER = Sign(partial(_there, name=COMMON)), Sign(partial(_there, name=MARKER))
_BESIDE = (
    Sign(partial(_there, name=METADATA)),
    Sign(_data),
    Sign(_context),
    Sign.named(common.NAME, "the directory's name"),
)


class MegatronDistributed(common.Megatron):
    """metadata.json, .metadata and `.distcp` files, before version 0.19 also common.pt; at the top or in NeMo's `weights/`."""

    name = "megatron"
    title = "Megatron-core distributed checkpoint"
    signatures = (
        Signature(must=(_COMMON,), may=(_MARKER, *_BESIDE), least=1, extends=Distributed.signatures),
        Signature(
            must=(Sign(_names_backend),),
            may=_BESIDE,
            least=1,
            extends=Distributed.signatures,
        ),
    )
    own_loader: ClassVar[tuple[str, ...]] = (COMMON, "*.distcp", METADATA, "*train_dataloader_dprank*.pt")

    refused: ClassVar[tuple[str, ...]] = ("torch.optim.*", "transformer_engine.*", "apex.*", "deepspeed.*")

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """metadata.json commits the save; DCP's own metadata and the arguments lie beside it."""
        folder = folder_of(checkpoint)
        marker = "it is written last; without it Megatron does not recognise the directory as a distributed checkpoint"
        holds = "it holds the iteration, the arguments and the state of the scheduler"
        return (
            Requirement((f"{folder}{MARKER}",), marker, commits=True, purposes=TO_RESUME_OR_LOAD),
            Requirement(
                (f"{folder}{METADATA}",),
                "without it nothing in the .distcp files can be found",
                purposes=TO_RESUME_OR_LOAD,
            ),
            *((Requirement((f"{folder}{COMMON}",), holds),) if checkpoint.fact(needs_common_file) else ()),
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model's tensors at their full shapes."""
        metadata = sharded(checkpoint)
        path = metadata.path
        tensors = {}
        for name, tensor in metadata.tensors.items():
            if not name.startswith(("optimizer.", "rng_state", "chained_")):
                info = TensorInfo(tensor.dtype, tensor.shape, 0)
                tensors[name] = info._replace(nbytes=info.numel * DTYPE_BITS.get(tensor.dtype, 0) // 8)
        if not tensors:
            raise FactUnavailable(f"{path} names no model weights", path=path)
        return Weights((WeightFile(path, "dcp", tensors),))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """What is not sharded: common.pt, or the item `common_state`."""
        path, values = checkpoint.fact(common_state)
        return TrainingState(path, values, tuple(_fields(checkpoint, values)))

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """Spread over the ranks in pieces that are not put together here."""
        raise FactUnavailable(_why_not_put_together(checkpoint))

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """Of Megatron's own kind: its counter is compared with the samples consumed."""
        raise FactUnavailable("Megatron's scheduler counts samples, which progress/counters-disagree compares")

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """Part of the optimizer's state."""
        raise FactUnavailable("the loss scale is part of the optimizer's state")

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """Objects of the distributed checkpoint, one for each rank of a stage."""
        found = generators(checkpoint)
        if found is None:
            raise FactUnavailable("no rank's random-number state was saved")
        path, sources = found
        return RngState(path, "rng_state", sources)


def _fields(checkpoint: Checkpoint, values: Mapping[object, object]) -> Iterator[Field]:
    """The iteration; and of a run that has begun, but not of NeMo, whose Lightning keeps the rest, what Megatron stops without."""
    yield _STEP
    if folder_of(checkpoint) or not common.is_begun(values):
        return
    yield Field(
        "optimizer",
        ("optimizer", "optimizer_states"),
        Severity.ERROR if _has_no_optimizer(checkpoint, values) else None,
        _STOPS,
    )
    if saves_generators(values):
        yield Field(
            "rng", ("rng_state",), Severity.WARNING, "Megatron stops with 'Unable to load rng state from checkpoint'"
        )


def _moments(checkpoint: Checkpoint) -> bool:
    """Whether anything in the save could be an optimizer's: in DCP, or in files of each rank's own."""
    metadata = sharded(checkpoint)
    names = chain(metadata.tensors, metadata.objects)
    return any("optim" in name for name in names) or any("optim" in e.name for e in checkpoint.listing)


def _has_no_optimizer(checkpoint: Checkpoint, values: Mapping[object, object]) -> bool:
    """Whether its groups are missing; no more than the groups where nothing is held for any parameter."""
    try:
        names = sharded(checkpoint).objects
    except FactUnavailable:
        return False
    return not any(key in values for key in ("optimizer", "optimizer_states")) and not any("optim" in n for n in names)


def _why_not_put_together(checkpoint: Checkpoint) -> str:
    _, values = checkpoint.fact(common_state)
    if not _has_no_optimizer(checkpoint, values):
        return "the optimizer's state is spread over the ranks in pieces"
    if _moments(checkpoint):
        return "the optimizer's param_groups, with its rates and its count of steps, are missing, although its moments are there"
    return "there is no optimizer: neither its param_groups nor its moments"

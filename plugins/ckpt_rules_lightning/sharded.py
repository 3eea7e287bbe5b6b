"""The directory of ModelParallelStrategy and FSDPStrategy: a distributed checkpoint, and `meta.pt` with all the rest."""

from __future__ import annotations

import re
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Field,
    OptimizerState,
    Ranks,
    Recorded,
    Requirement,
    Severity,
    Sign,
    Signature,
    TrainingState,
    WeightFile,
    Weights,
    conventions,
    state_dicts,
)
from ckpt_rules_dcp.public import METADATA, Distributed, Small, saved, whole_metadata, why_elsewhere
from ckpt_rules_lightning.common import NAME, LightningState, keys_in, read_state
from ckpt_rules_lightning.layout import Lightning
from ckpt_rules_lightning.loops import read_loops

META = "meta.pt"
_ENTRY = re.compile(r"optimizer_(\d{1,3})\..+")
_NO_META = (
    "Lightning writes it last, so this save never finished; Lightning recognises such a directory only by this "
    "file, and stops with 'does not point "
    "to a valid checkpoint'"
)
_NO_METADATA = "nothing in the .distcp files can be found without it; a copy with `cp *` leaves it out"
_NO_OPTIMIZER = "Lightning stops: it loads the state of every optimizer from there"


def _own_keys(checkpoint: Checkpoint) -> list[str]:
    """Lightning's keys in `meta.pt`, which holds no weights."""
    found = checkpoint.fact(_keys)
    return [f"'{key}' in {META}" for key in found] if len(found) > 1 and "state_dict" not in found else []


_FILES = (Sign.file(METADATA), Sign.file(conventions.distributed.SHARD_OF_RANK, most=2))
_BUILT_ON = (*Distributed.signatures, *Lightning.signatures)


class LightningSharded(LightningState):
    """`.metadata`, `__R_0.distcp` of every rank, and `meta.pt`."""

    name = "lightning-sharded"
    title = "PyTorch Lightning sharded checkpoint"
    signatures = (
        Signature(must=(Sign(_own_keys, most=2),), may=_FILES, extends=_BUILT_ON),
        Signature(
            must=(Sign.file(METADATA, conventions.distributed.SHARD_OF_RANK, most=3), Sign.named(NAME)),
            never=(Sign(lambda checkpoint: checkpoint.fact(_keys)),),
            extends=_BUILT_ON,
        ),
    )
    own_loader: ClassVar[tuple[str, ...]] = ("*.distcp", METADATA)

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """`meta.pt`, which is written last; `.metadata` names the files of data that there must be."""
        elsewhere = why_elsewhere(checkpoint, METADATA)
        return (
            Requirement((META,), _NO_META, commits=True, purposes=TO_RESUME_OR_LOAD, elsewhere=elsewhere),
            Requirement((METADATA,), _NO_METADATA, purposes=TO_RESUME_OR_LOAD, elsewhere=elsewhere),
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model's tensors at their full shapes."""
        whole_metadata(checkpoint, METADATA)
        tensors = checkpoint.fact(saved.model_tensors)
        if not tensors:
            raise FactUnavailable(f"{METADATA} names no model weights", path=METADATA)
        return Weights((WeightFile(METADATA, "dcp", tensors),))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """`meta.pt`: everything but weights and optimizers."""
        if checkpoint.listing.get(META) is None:
            raise FactUnavailable(f"there is no {META}", path=META, blocked=True)
        state = read_state(checkpoint, META)
        loops = read_loops(state.values)
        used = (
            loops is None or loops.updates["completed"] or loops.manual["completed"] or state.get("scheduler") is None
        )
        severity = Severity.ERROR if used else None
        return read_state(checkpoint, META, Field("optimizer", ("optimizer_0",), severity, _NO_OPTIMIZER, METADATA))

    def held(self, checkpoint: Checkpoint) -> int:
        """How many `optimizer_N` there are."""
        try:
            return len(_numbers(checkpoint))
        except FactUnavailable:
            return 0

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """The only optimizer; FactUnavailable where there are several, or none."""
        found = checkpoint.optimizers
        if len(found) != 1:
            raise FactUnavailable(f"there are {len(found):,} optimizers, and nothing says which one is meant")
        return found[0]

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Each put together from its entries; parameters go by name."""
        numbers = _numbers(checkpoint)
        if not numbers:
            raise FactUnavailable(f"{METADATA} names no state of an optimizer")
        return tuple(_optimizer(checkpoint, n) for n in numbers)

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """The update counters of one optimizer, each in the file of the rank that wrote it, and the step in `meta.pt`."""
        small = _small(checkpoint)
        counted = saved.update_counters(small, _pattern(0))
        steps = [Recorded("step", step, small.paths[name], name) for name, step in counted.items()]
        return Ranks(steps=(*steps, *_step_of(checkpoint)))


def _step_of(checkpoint: Checkpoint) -> tuple[Recorded, ...]:
    """The optimizer steps in `meta.pt`, where each of them is an update: not under fp16, nor with several optimizers."""
    try:
        state = checkpoint.state
    except FactUnavailable:
        return ()
    loops = read_loops(state.values)
    steps = loops.updates["completed"] if loops else 0
    if not loops or not steps or state.get("scaler") is not None or len(_numbers(checkpoint)) != 1:
        return ()
    return (Recorded("step", steps, META, f"{loops.updates.key}.completed"),)


def _keys(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Lightning's keys in `meta.pt`; none where it can't be read."""
    if checkpoint.listing.get(META) is None:
        return ()
    try:
        return keys_in(checkpoint.files.contents(META))
    except FactUnavailable:
        return ()


def _optimizer(checkpoint: Checkpoint, number: int) -> OptimizerState:
    state = saved.optimizer_state(checkpoint, _small(checkpoint), METADATA, _pattern(number))
    return state_dicts.optimizer(state, METADATA, f"optimizer_{number}")


def _pattern(number: int) -> re.Pattern[str]:
    return re.compile(rf"optimizer_{number}\.(.+)")


def _numbers(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The numbers of the optimizers that `.metadata` names."""
    metadata = whole_metadata(checkpoint, METADATA)
    names = (*metadata.tensors, *metadata.objects)
    return tuple(sorted({int(match[1]) for name in names if (match := _ENTRY.fullmatch(name))}))


def _small(checkpoint: Checkpoint) -> Small:
    whole_metadata(checkpoint, METADATA)
    return saved.all_small_values(checkpoint)

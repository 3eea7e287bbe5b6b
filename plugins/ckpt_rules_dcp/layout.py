"""DCP's layout: recognising it, and where its facts are found."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    DataLoaders,
    FactUnavailable,
    Field,
    Layout,
    LoaderState,
    OptimizerState,
    Progress,
    Ranks,
    Recorded,
    Requirement,
    ResumePlan,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    TrainingState,
    WeightFile,
    Weights,
    conventions,
    is_count,
    plain,
    rank_of_metadata,
    state_dicts,
)
from ckpt_rules_dcp import saved
from ckpt_rules_dcp.extras import rng_of, scaler_of
from ckpt_rules_dcp.nodes import ranks_of, why_elsewhere
from ckpt_rules_dcp.saved import METADATA, Small

LOADER = re.compile(r"dataloader\.dp_rank_(\d{1,6})")
WORLD = "dataloader.world_size"
_MOST_RANKS = 4_096
_OWN_SUFFIXES = (".distcp", ".metadata")
_REST_OF_STATE = re.compile(r"(?:lr_)?schedulers?\.|train_state\.|dataloader\.")
_NO_OPTIMIZER = "dcp.load requests each of its entries, and stops"
_WHY_OF_RANK = (
    "when ranks save independently, each writes its own metadata last, so this rank never finished its save and "
    "can't load it"
)
_WHY = "it is written last, so this save never finished, and nothing can be loaded without it; a copy with `cp *` leaves it out"


def _metadata_files(checkpoint: Checkpoint) -> list[str]:
    """`.metadata`, or that of each rank."""
    if checkpoint.listing.get(METADATA) is not None:
        return [METADATA]
    return [e.path for e in checkpoint.listing if rank_of_metadata(e.path) is not None]


def _readable(checkpoint: Checkpoint) -> list[str]:
    found = _metadata_files(checkpoint)
    return found if found and checkpoint.files.distributed().problem is None else []


_METADATA = Sign(_metadata_files)


class Distributed(Layout):
    """`.metadata` and `__R_K.distcp`; or `__R.metadata` of each rank, where ranks saved without talking to each other."""

    name = "torch-distributed"
    title = "torch.distributed.checkpoint directory"
    signatures: ClassVar[tuple[Signature, ...]] = (
        Signature(must=(_METADATA, Sign.file(conventions.distributed.SHARD_OF_RANK, most=2))),
        Signature(must=(Sign.file(conventions.distributed.SHARD_OF_RANK, most=3),)),
        Signature(must=(Sign(_readable),)),
    )
    own_loader: ClassVar[tuple[str, ...]] = ("*.distcp", METADATA, f"__*{METADATA}")

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """`.metadata`, or that of each rank; which files there must be, it says itself."""
        of_ranks = () if checkpoint.listing.get(METADATA) else checkpoint.fact(_ranks_alone)
        if not of_ranks:
            elsewhere = why_elsewhere(checkpoint, METADATA)
            return (Requirement((METADATA,), _WHY, commits=True, purposes=TO_RESUME_OR_LOAD, elsewhere=elsewhere),)
        names = (f"__{rank}{METADATA}" for rank in of_ranks)
        return tuple(Requirement((name,), _WHY_OF_RANK, commits=True, purposes=TO_RESUME_OR_LOAD) for name in names)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model's tensors at their full shapes."""
        _whole(checkpoint)
        tensors, path = checkpoint.fact(saved.model_tensors) or saved.whole_model(_small(checkpoint)), _path(checkpoint)
        if not tensors:
            raise FactUnavailable(f"{path} names no model weights", path=path)
        return Weights((WeightFile(path, "dcp", tensors),))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """Everything small, by its full name."""
        small = _small(checkpoint)
        found = saved.counters(small)
        severity = None if found or saved.optimizer_state(checkpoint, small) is None else Severity.INFO
        fields = tuple(
            Field(name, (found.get(name, name),), severity if name == "global_step" else None)
            for name in ("global_step", "epoch")
        )
        fields = (*fields, *_parts(checkpoint, small))
        return TrainingState(_path(checkpoint), {name: value for name, value in small.values.items()}, fields)  # noqa: C416 - mypy takes no dict() here

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """Put together from its entries; parameters go by name."""
        small = _small(checkpoint)
        state = saved.optimizer_state(checkpoint, small)
        found = state_dicts.optimizer(state, _path(checkpoint), None if state is None else "optimizer")
        return replace(found, grouped=not saved.is_flattened(small))

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """Put together from its entries."""
        small = _small(checkpoint)
        state = saved.scheduler_state(checkpoint, small)
        if state is None and (name := saved.scheduler_lost(small)):
            said = f"'{name}' is None, although the optimizer had a scheduler (initial_lr)"
            raise FactUnavailable(said, path=_path(checkpoint), blocked=True)
        return state_dicts.scheduler(state, _path(checkpoint), None if state is None else "lr_scheduler")

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """Under a name such as `scaler`."""
        return scaler_of(_small(checkpoint), _path(checkpoint))

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """Under a name such as `rng_state`."""
        return rng_of(checkpoint, _small(checkpoint))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters outside of optimizer and scheduler."""
        small = _small(checkpoint)
        return tuple(
            Recorded(name, plain(small.values[key]), small.paths[key], key)
            for name, key in saved.counters(small).items()
            if name == "global_step"
        )

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """The global step, or the optimizer's count of updates."""
        recorded = checkpoint.recorded
        steps = [int(r.value) for r in recorded if is_count(r.value)]
        if len(steps) < len(recorded):
            raise FactUnavailable(f"{recorded[0].key} is not valid", path=recorded[0].path, blocked=True)
        updates = max(saved.update_counters(_small(checkpoint)).values(), default=None)
        step = steps[0] if steps else None
        done = updates if step is None else step
        if done is None:
            raise FactUnavailable("neither a step nor an optimizer's counter is recorded")
        where = "; the script's own data loader decides where the data continue"
        return Progress(
            global_step=step,
            expected_updates=step,
            exact=bool(recorded) and recorded[0].key.startswith("train_state."),
            plan=ResumePlan(from_update=done, unit="step", also=where),
        )

    def dataloaders(self, checkpoint: Checkpoint) -> DataLoaders:
        """torchtitan's: an object for each data-parallel rank, and the number of ranks."""
        small = _small(checkpoint)
        found = ((LOADER.fullmatch(name), name) for name in checkpoint.files.distributed().objects)
        states = tuple(
            LoaderState(small.paths.get(n, _path(checkpoint)), n, rank=int(m[1]))
            for m, n in sorted(found, key=lambda f: f[1])
            if m
        )
        size = small.values.get(WORLD)
        return DataLoaders(
            states, None if size is None else Recorded("world_size", plain(size), small.paths[WORLD], WORLD)
        )

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """The update counters, each in the file of the rank that wrote it; where each rank saved by itself, those of all."""
        _small(checkpoint)
        each = (
            checkpoint.fact(saved.small_values, path) for path in checkpoint.files.metadata_files if "/" not in path
        )
        steps = (
            Recorded("step", step, small.paths[name], name)
            for small in each
            for name, step in saved.update_counters(small).items()
        )
        return Ranks(steps=tuple(steps))


def _ranks_alone(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The ranks that each saved by itself, by their files, and those between them; none where one wrote `.metadata`."""
    tops = [e.name for e in checkpoint.listing if "/" not in e.path]
    found = {rank for name in tops if (rank := rank_of_metadata(name)) is not None}
    between = range(min(found), min(max(found), min(found) + _MOST_RANKS)) if found else ()
    return tuple(sorted({*found, *between, *ranks_of(tops)})) if found else ()


def _parts(checkpoint: Checkpoint, small: Small) -> tuple[Field, ...]:
    """Optimizer and scheduler, where no file beside the distributed ones may hold them.

    The optimizer is missed where the rest of a training's state is there, the scheduler where the optimizer had one.
    """
    if any(e.path != METADATA and e.suffix not in _OWN_SUFFIXES for e in checkpoint.listing.files()):
        return ()
    training = any(_REST_OF_STATE.match(small.bare(name)) for name in small.values)
    return (
        Field("optimizer", ("optimizer", "optim", "optimizers"), Severity.ERROR if training else None, _NO_OPTIMIZER),
        Field("scheduler", ("lr_scheduler", "scheduler", "lr_schedulers", "schedulers")),
    )


def _path(checkpoint: Checkpoint) -> str:
    return checkpoint.files.distributed().path


def _small(checkpoint: Checkpoint) -> Small:
    _whole(checkpoint)
    return saved.all_small_values(checkpoint)


def _whole(checkpoint: Checkpoint) -> None:
    if checkpoint.listing.get(METADATA) is None and not checkpoint.fact(_ranks_alone):
        why = why_elsewhere(checkpoint, METADATA) or f"there is no {METADATA}"
        raise FactUnavailable(why, path=METADATA, blocked=True)
    metadata = checkpoint.files.distributed()
    if metadata.problem is not None:
        raise FactUnavailable(f"{metadata.path} can't be interpreted", path=metadata.path, blocked=True)

"""FSDP's and DeepSpeed's files inside of a Trainer checkpoint: which there are, and what a resume does without them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

from ckpt_rules import (
    Backend,
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Requirement,
    conventions,
    is_count,
    saves_among,
)
from ckpt_rules_dcp.public import (
    Fsdp,
    Parts,
    find_parts,
    first_paths,
    missing_parts,
    purposes_of,
    uncommitted,
    why_elsewhere,
)
from ckpt_rules_deepspeed.public import Saved, Zero, requirements_of, saved_in, saves_inside
from ckpt_rules_transformers.arguments import arguments

STATE = conventions.state_files.TRAINER_STATE
SCHEDULER = conventions.state_files.TRAINER_SCHEDULER
_ABSURD = 1e300
_ABSENT = {
    "model": "under FSDP the Trainer loads the model from it, and stops without it",
    "optimizer": "without it the Trainer ignores scheduler.pt as well and starts both again, silently",
}
_UNFINISHED = (
    "it is written last, so the {} was never saved as a whole, and a resume stops with CheckpointException; a copy with "
    "`cp *` leaves it out"
)
_NO_SCHEDULER = "without it the Trainer ignores FSDP's optimizer as well and starts both again, silently"
_BY_RANK = (
    "the model was saved as one file per rank, which the Trainer does not look for, so it stops with \"Can't find a "
    'valid checkpoint"'
)
_NO_TAG = 'without a directory global_step* the Trainer stops with "Can\'t find a valid checkpoint"'
_LATEST = conventions.pointers.DEEPSPEED
_NO_LATEST = 'DeepSpeed finds no save without it, and the Trainer stops with "failed to resume from checkpoint"'
_NO_OWN_SCHEDULER = "DeepSpeed keeps no scheduler here, and the Trainer stops with FileNotFoundError"


def fsdp_parts(checkpoint: Checkpoint) -> Parts:
    """Models and optimizers of FSDP; nothing where it took no part. The Trainer alone writes no `optimizer.bin`."""
    parts = checkpoint.fact(find_parts)
    others = checkpoint.listing.has_file(conventions.state_files.TRAINER_OPTIMIZER) or checkpoint.fact(zero_saves)
    return parts if parts.are_any or not others else Parts()


def zero_saves(checkpoint: Checkpoint) -> tuple[Saved, ...]:
    """DeepSpeed's save: the one that `latest` names, or the newest; one without files where its directory is gone."""
    tags = saves_among(saved.folder.rstrip("/") for saved in checkpoint.fact(saves_inside))
    latest = checkpoint.files.small_text(_LATEST)
    if not tags and not saves_among([latest or ""]) and not checkpoint.listing.has_file("zero_to_fp32.py"):
        return ()
    tag = latest if latest in tags or (latest and not tags) else next(reversed(tags), _tag_of(checkpoint))
    return (saved_in(checkpoint, f"{tag}/"),)


def _tag_of(checkpoint: Checkpoint) -> str:
    try:
        step = checkpoint.state.values.get("global_step")
    except FactUnavailable:
        return "global_step*"
    return f"global_step{step}" if is_count(step) else "global_step*"


def requirements_of_sharded(checkpoint: Checkpoint) -> tuple[Requirement, ...] | None:
    """What a resume needs of model, optimizer and scheduler; None where neither FSDP nor DeepSpeed wrote here."""
    if saves := checkpoint.fact(zero_saves):
        return tuple(_of_zero(checkpoint, saves))
    parts = checkpoint.fact(fsdp_parts)
    return tuple(_of_fsdp(checkpoint, parts)) if parts.models or parts.optimizers else None


def _of_zero(checkpoint: Checkpoint, saves: tuple[Saved, ...]) -> Iterator[Requirement]:
    if checkpoint.files.small_text(_LATEST) is None and checkpoint.listing.get(_LATEST) is None:
        yield Requirement((_LATEST,), _NO_LATEST)
    if not checkpoint.fact(saves_inside):
        yield Requirement((f"{saves[0].folder}*",), _NO_TAG)
        return
    yield from requirements_of(checkpoint, saves[0])
    if Zero(saves).steps_scheduler(checkpoint) is False:
        yield Requirement((SCHEDULER,), _NO_OWN_SCHEDULER)


def _of_fsdp(checkpoint: Checkpoint, parts: Parts) -> Iterator[Requirement]:
    for kind, number in missing_parts(parts):
        yield Requirement(first_paths(parts, kind, number), _ABSENT[kind], purposes=_purposes(checkpoint, kind))
    if any(part.ranks and not part.folder and not part.file for part in parts.models.values()):
        yield Requirement(first_paths(Parts(), "model", 0)[:2], _BY_RANK)
    for kind, path in uncommitted(checkpoint, parts):
        why, elsewhere = _UNFINISHED.format(kind), why_elsewhere(checkpoint, path)
        yield Requirement((path,), why, purposes=_purposes(checkpoint, kind), elsewhere=elsewhere)
    yield Requirement((SCHEDULER,), _NO_SCHEDULER)


def _purposes(checkpoint: Checkpoint, kind: str) -> frozenset[str]:
    """FULL_STATE_DICT writes the model twice, and from_pretrained takes the other."""
    whole = checkpoint.listing.first_file(("model.safetensors", "model.safetensors.index.json"))
    return purposes_of("optimizer" if whole else kind)


def updates_in(checkpoint: Checkpoint, step: int) -> int:
    """Optimizer updates that are due at a global step: DeepSpeed skips those that overflow, and may count others besides."""
    counted = checkpoint.fact(backend).counted(checkpoint)
    if counted is None:
        return step
    _, steps, skipped = counted
    return (steps if _may_differ(checkpoint, step, steps) else step) - min(skipped, step)


def contradictions_of_zero(checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
    """DeepSpeed's counters by themselves, and its steps against the Trainer's."""
    keeper = checkpoint.fact(backend)
    found = list(keeper.contradictions(checkpoint))
    counted, step = keeper.counted(checkpoint), checkpoint.state.values.get("global_step")
    if counted and is_count(step) and not _may_differ(checkpoint, int(step), counted[1]):
        said = f"global_steps in {counted[0]} is {counted[1]:,}, but global_step in {STATE} is {int(step):,}"
        found.append(Contradiction(counted[0], "global_steps", said))
    return tuple(found)


def _may_differ(checkpoint: Checkpoint, step: int, counted: int) -> bool:
    """Whether DeepSpeed's count fits: old Trainers left what was accumulated at an epoch's end to it, and did not count it."""
    run = arguments(checkpoint)
    if run.values and run.accumulation == 1:
        return counted == step
    epoch = checkpoint.state.values.get("epoch")
    epochs = math.ceil(epoch) if is_epoch(epoch) else 0
    return 0 <= counted - step <= epochs


def is_epoch(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that epochs can be counted by; larger ones are not floats."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ABSURD


def is_sharded(checkpoint: Checkpoint) -> bool:
    """Whether FSDP or DeepSpeed saves and loads model and optimizer in the Trainer's place."""
    return bool(checkpoint.fact(backend))


def backend(checkpoint: Checkpoint) -> Backend:
    """Who does: DeepSpeed, FSDP, or nobody."""
    saves, parts = checkpoint.fact(zero_saves), Fsdp(checkpoint.fact(fsdp_parts))
    return Zero(saves) if saves else parts or Backend()

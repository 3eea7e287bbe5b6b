"""The directory of DeepSpeedStrategy: DeepSpeed's save under the tag `checkpoint`, with Lightning's state as client_state."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Field,
    Progress,
    Requirement,
    ScalerState,
    Severity,
    Sign,
    Signature,
    TrainingState,
    conventions,
    dictionary,
)
from ckpt_rules_deepspeed.public import (
    LIGHTNING_TAG,
    DeepSpeed,
    contradictions_in,
    counted,
    find_saved,
    part,
    readable,
    zero_stage,
)
from ckpt_rules_lightning.common import NAME, VERSION, LightningState, keys_in, read_state
from ckpt_rules_lightning.loops import read_loops

_LATEST = conventions.pointers.DEEPSPEED
_NO_LATEST = (
    "DeepSpeed writes it last, so this save may never have finished; without it load_checkpoint finds nothing, and Lightning stops "
    "with 'DeepSpeed was unable to load the checkpoint'"
)
_COUNTERS = (
    Field("global_steps", ("global_steps",), Severity.ERROR, "load_checkpoint stops with KeyError"),
    Field("samples", ("global_samples",)),
)


def _signs(checkpoint: Checkpoint) -> tuple[str, ...]:
    """DeepSpeed's files under Lightning's tag."""
    saved = checkpoint.fact(find_saved)
    return saved.signs if saved.folder == f"{LIGHTNING_TAG}/" else ()


def _readable(checkpoint: Checkpoint) -> list[str]:
    return [path for path, _ in readable(checkpoint, checkpoint.fact(find_saved).models[:1])]


def _own_keys(checkpoint: Checkpoint) -> list[str]:
    """Lightning's keys in the model states of the first rank."""
    for path, values in readable(checkpoint, checkpoint.fact(find_saved).models[:1]):
        found = keys_in(values)
        return [f"'{key}' in {path}" for key in found] if {VERSION, "loops"} & set(found) else []
    return []


_SAVED = Sign(_signs, most=9)


class LightningDeepSpeed(LightningState, DeepSpeed):
    """`checkpoint/` with the files of each rank, and `latest`."""

    name = "lightning-deepspeed"
    title = "PyTorch Lightning checkpoint by DeepSpeed"
    signatures = (
        Signature(must=(Sign(_own_keys, most=2), _SAVED), extends=DeepSpeed.signatures),
        Signature(
            must=(_SAVED, Sign.named(NAME)),
            never=(Sign(_readable),),
            extends=DeepSpeed.signatures,
        ),
    )
    own_loader: ClassVar[tuple[str, ...]] = DeepSpeed.own_loader

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """DeepSpeed's, and `latest`, for Lightning names no tag."""
        latest = Requirement((_LATEST,), _NO_LATEST, commits=True, purposes=TO_RESUME_OR_LOAD)
        return (latest, *DeepSpeed.requirements(self, checkpoint))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The model states of the first rank, into which Lightning's state is merged."""
        saved = checkpoint.fact(find_saved)
        if not saved.models:
            raise FactUnavailable("there is no mp_rank_00_model_states.pt")
        path = saved.models[0]
        whole = not zero_stage(dictionary(checkpoint, path)) and not saved.optimizer_parts
        severity = Severity.ERROR if whole and not saved.expert_optimizers else None
        optimizer = Field("optimizer", ("optimizer",), severity, "the optimizer starts again with empty moments")
        return read_state(checkpoint, path, optimizer, *_COUNTERS)

    def held(self, checkpoint: Checkpoint) -> int:
        """One: the strategy allows no more."""
        return 1

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """DeepSpeed's own."""
        return DeepSpeed.scaler(self, checkpoint)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """From the loops; updates are DeepSpeed's to count, for it accumulates gradients across the end of an epoch."""
        values = checkpoint.state.values
        steps = counted(values, "global_steps")
        made = None if steps is None else max(steps - (counted(values, "skipped_steps") or 0), 0)
        return replace(super().progress(checkpoint), expected_updates=made, exact=made is not None)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Of Lightning's loops, and of DeepSpeed's counters of each rank."""
        files = readable(checkpoint, checkpoint.fact(find_saved).models)
        own = (found for path, values in files for found in contradictions_in(path, values))
        return (*super().contradictions(checkpoint), *own, *_between(checkpoint))


def _between(checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
    """Lightning's steps against DeepSpeed's, which are the same where no gradients are accumulated."""
    state = checkpoint.state
    loops, steps = read_loops(state.values), counted(state.values, "global_steps")
    accumulated = counted(part(state.values, "ds_config"), "gradient_accumulation_steps")
    own = loops.updates["completed"] if loops else 0
    if accumulated != 1 or not own or steps is None or own == steps:
        return ()
    words = f"global_steps of DeepSpeed is {steps:,}, and Lightning's loop has completed {own:,} optimizer steps"
    return (Contradiction(state.path, "global_steps", words),)

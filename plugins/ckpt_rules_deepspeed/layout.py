"""DeepSpeed's layout: recognising it, and where its facts are found."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Field,
    Layout,
    Master,
    OptimizerState,
    Pointer,
    Progress,
    Ranks,
    Recorded,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    Severity,
    Sign,
    Signature,
    TrainingState,
    Weights,
    state_dicts,
)
from ckpt_rules_deepspeed.files import Saved, find_saved
from ckpt_rules_deepspeed.masters import masters_of
from ckpt_rules_deepspeed.pointers import pointers_of
from ckpt_rules_deepspeed.progress import contradictions_in, progress_of
from ckpt_rules_deepspeed.ranks import ranks_of
from ckpt_rules_deepspeed.requirements import requirements_of
from ckpt_rules_deepspeed.states import OPTIMIZER, loss_scaler, model_state, optimizers, part, readable, zero_stage
from ckpt_rules_deepspeed.weights import weights_of


class DeepSpeed(Layout):
    """A tag's directory, `global_step500/` as a rule, by `save_checkpoint`."""

    name = "deepspeed"
    title = "DeepSpeed checkpoint"
    signatures: ClassVar[tuple[Signature, ...]] = (
        Signature(must=(Sign(lambda checkpoint: checkpoint.fact(find_saved).signs, most=9),)),
    )
    own_loader: ClassVar[tuple[str, ...]] = ("*model_states.pt", "*optim_states.pt", "zero/*.pt")

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Model states always; partitions of the optimizer where ZeRO has any; each part that other parameters have."""
        return requirements_of(checkpoint, checkpoint.fact(find_saved))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Under `module`, in files of layers and experts, or, under ZeRO-3, as the shapes of partitions."""
        return weights_of(checkpoint, checkpoint.fact(find_saved))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The model states of the first rank, into which `client_state` is merged."""
        saved = checkpoint.fact(find_saved)
        path, values = model_state(checkpoint, saved)
        return TrainingState(path, values, _fields(saved, zero_stage(values)))

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """That of the first rank."""
        return checkpoint.optimizers[0]

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...]:
        """In the flat partitions of ZeRO 1 and 2 and of the bf16 optimizer."""
        return masters_of(checkpoint, checkpoint.fact(find_saved))

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """That of each rank."""
        saved = checkpoint.fact(find_saved)
        if saved.universal:
            raise FactUnavailable("a universal checkpoint keeps the optimizer's state parameter by parameter")
        found = tuple(optimizers(checkpoint, saved))
        if not found:
            raise FactUnavailable("there is no optimizer")
        return found

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """Under `lr_scheduler`: torch's, or DeepSpeed's own, which keep one number and set every group's rate at each step."""
        found = super().scheduler(checkpoint)
        if set(found.values) != {"last_batch_iteration"}:
            return found
        try:
            return replace(found, last_lr=checkpoint.optimizer.lrs)
        except FactUnavailable:
            return found

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """A dynamic loss scaler, which only fp16 has."""
        path, key, scale, dynamic = loss_scaler(checkpoint, checkpoint.fact(find_saved))
        if not dynamic:
            raise FactUnavailable("the loss scale is fixed")
        return ScalerState(path, key, True, scale)

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """None: DeepSpeed keeps no random-number state; scripts may, in client_state."""
        state = checkpoint.state
        return state_dicts.rng(state.get("rng"), state.path, state.key_of("rng"))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """DeepSpeed's own counters."""
        path, values = model_state(checkpoint, checkpoint.fact(find_saved))
        return (
            (Recorded("global_step", values["global_steps"], path, "global_steps"),) if "global_steps" in values else ()
        )

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """Steps, of which some may have been skipped; and one update more, where the optimizer began with one of zeros."""
        _, values = model_state(checkpoint, checkpoint.fact(find_saved))
        found = progress_of(values)
        if found.expected_updates is None or OPTIMIZER not in part(values, "optimizer"):
            return found
        try:
            more = checkpoint.optimizer.updates == found.expected_updates + 1
        except FactUnavailable:
            return found
        return replace(found, expected_updates=found.expected_updates + more)

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Of each rank's counters by themselves."""
        files = readable(checkpoint, checkpoint.fact(find_saved).models)
        return tuple(found for path, values in files for found in contradictions_in(path, values))

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """Partitions, experts, layers."""
        return ranks_of(checkpoint, checkpoint.fact(find_saved))

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """`latest`, in the directory above."""
        return pointers_of(checkpoint, checkpoint.fact(find_saved))


def _fields(saved: Saved, stage: int) -> tuple[Field, ...]:
    whole = not stage and not saved.optimizer_parts and not saved.expert_optimizers and not saved.universal
    optimizer = Severity.ERROR if whole else None
    return (
        Field("optimizer", ("optimizer",), optimizer, "the optimizer starts again with empty moments"),
        Field("scheduler", ("lr_scheduler",), Severity.WARNING, "the learning-rate schedule starts again"),
        Field("global_step", ("global_steps",), Severity.ERROR, "load_checkpoint stops with KeyError"),
        Field("samples", ("global_samples",)),
    )

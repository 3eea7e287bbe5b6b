"""DeepSpeed's layout: recognising it, and where its facts are found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Field,
    Layout,
    Master,
    Match,
    OptimizerState,
    Pointer,
    Progress,
    Ranks,
    Recorded,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    TrainingState,
    Weights,
    state_dicts,
)
from ckpt_rules_deepspeed.files import UNIVERSAL_STATE, Saved, find_saved
from ckpt_rules_deepspeed.masters import masters_of
from ckpt_rules_deepspeed.pointers import pointers_of
from ckpt_rules_deepspeed.progress import contradictions_in, progress_of
from ckpt_rules_deepspeed.ranks import ranks_of
from ckpt_rules_deepspeed.states import OPTIMIZER, loss_scaler, model_state, optimizers, part, readable, zero_stage
from ckpt_rules_deepspeed.weights import parameters, weights_of

_SEVERAL, _ONE = 95, 90
_MODEL_NAMES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
_NO_MODEL = "load_checkpoint stops with an AssertionError that says nothing"
_NO_OPTIMIZER = "ZeRO keeps each rank's optimizer there, and the ranks stop with FileNotFoundError"
_NO_LAYER = "it has parameters of the pipeline, and load_checkpoint stops without them"
_NO_PART = "the universal save is not whole: other parameters have one"
_NO_WHOLE = "load_checkpoint stops with an AssertionError, for a universal save keeps the optimizer's groups there"


_NUMBER = re.compile(r"[0-9]{1,4}")


class DeepSpeed(Layout):
    """A tag's directory, `global_step500/` as a rule, by `save_checkpoint`."""

    name = "deepspeed"
    title = "DeepSpeed checkpoint"
    own_loader: ClassVar[tuple[str, ...]] = ("*model_states.pt", "*optim_states.pt", "zero/*.pt")

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By files of model or optimizer states, whatever the directory's name is."""
        signs = checkpoint.fact(find_saved).signs
        return Match(_SEVERAL if len(signs) > 1 else _ONE, signs) if signs else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Model states always; partitions of the optimizer where ZeRO has any; each part that other parameters have."""
        saved = checkpoint.fact(find_saved)
        found: list[Requirement] = []
        if not saved.models:
            names = tuple(f"{saved.folder}{name}" for name in _MODEL_NAMES)
            found.append(Requirement(names, _NO_MODEL, purposes=frozenset({"resume", "load"})))
        if not saved.optimizer_parts and not saved.universal and _is_partitioned(checkpoint, saved):
            name = f"{saved.folder}zero_pp_rank_0_mp_rank_00_optim_states.pt"
            found.append(Requirement((name, f"{saved.folder}*optim_states.pt"), _NO_OPTIMIZER))
        return (*found, *_layers(checkpoint, saved), *_universal(checkpoint, saved))

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


def _is_partitioned(checkpoint: Checkpoint, saved: Saved) -> bool:
    try:
        return zero_stage(model_state(checkpoint, saved)[1]) > 0
    except FactUnavailable:
        return False


def _layers(checkpoint: Checkpoint, saved: Saved) -> Iterator[Requirement]:
    """A file of each layer of a pipeline that has parameters, by the names that the ranks record: `3.weight`."""
    if not saved.layers:
        return
    there = {layer for layer, _ in saved.layers}
    names = (name for _, values in readable(checkpoint, saved.models) for name, _ in parameters(values))
    recorded = {int(layer) for layer, _, _ in (name.partition(".") for name in names) if _NUMBER.fullmatch(layer)}
    for layer in sorted(recorded - there):
        name = f"{saved.folder}layer_{layer:02d}-model_states.pt"
        yield Requirement((name,), _NO_LAYER, purposes=frozenset({"resume", "load"}))


def _universal(checkpoint: Checkpoint, saved: Saved) -> tuple[Requirement, ...]:
    """The optimizer as a whole; weights of every parameter on record; and the moments that other parameters have."""
    if not saved.universal:
        return ()
    found = [] if saved.universal_state else [Requirement((f"{saved.folder}{UNIVERSAL_STATE}",), _NO_WHOLE)]
    moments = {part for parts in saved.universal.values() for part in parts} - {"fp32"}
    recorded = dict.fromkeys(_recorded(checkpoint, saved))
    for name in (*recorded, *(n for n in saved.universal if n not in recorded)):
        parts = saved.universal.get(name, {})
        due = {"fp32"} | (moments if parts.keys() & moments else set())
        found += [
            Requirement((f"{saved.folder}zero/{name}/{part}.pt",), _NO_PART) for part in sorted(due - parts.keys())
        ]
    return tuple(found)


def _recorded(checkpoint: Checkpoint, saved: Saved) -> tuple[str, ...]:
    """Names of the parameters whose shapes the model states of the first rank record."""
    try:
        return tuple(name for name, _ in parameters(model_state(checkpoint, saved)[1]))
    except FactUnavailable:
        return ()


def _fields(saved: Saved, stage: int) -> tuple[Field, ...]:
    optimizer = "error" if not stage and not saved.optimizer_parts and not saved.expert_optimizers else "optional"
    if saved.universal:
        optimizer = "optional"
    return (
        Field("optimizer", ("optimizer",), optimizer, "the optimizer starts again with empty moments"),
        Field("scheduler", ("lr_scheduler",), "warning", "the learning-rate schedule starts again"),
        Field("global_step", ("global_steps",), "error", "load_checkpoint stops with KeyError"),
        Field("samples", ("global_samples",)),
    )

"""Megatron-Bridge's form for Megatron-FSDP (`fsdp_dtensor`): all in one distributed checkpoint, and train_state.pt beside it."""

from __future__ import annotations

from dataclasses import replace

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Field,
    Pointer,
    Progress,
    Recorded,
    Requirement,
    Severity,
    Sign,
    Signature,
    TrainingState,
    dictionary_or_empty,
    is_count,
    plain,
)
from ckpt_rules_dcp.public import Distributed
from ckpt_rules_megatron import common

TRAIN_STATE, CONFIG = "train_state.pt", "run_config.yaml"
_STEP = "step"
_STOPS = "a resume stops at the missing key, or starts with empty moments where the run says that none are saved"


_DISTRIBUTED = Sign.fits(Distributed.signatures, most=3)


class MegatronFsdp(Distributed):
    """`.metadata` and `.distcp` files with names that begin with `model.`, and Bridge's own counters."""

    name = "megatron-fsdp"
    title = "Megatron-Bridge checkpoint of Megatron-FSDP"
    signatures = (
        Signature(
            must=(Sign.file(TRAIN_STATE), Sign.file(CONFIG), _DISTRIBUTED),
            never=(Sign.file("common.pt", "metadata.json"),),
            extends=Distributed.signatures,
        ),
    )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """And the counters."""
        counters = Requirement((TRAIN_STATE,), "it holds the step and the samples consumed")
        return (*super().requirements(checkpoint), counters)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """Everything small; an optimizer belongs to a run that has begun."""
        state = super().state(checkpoint)
        step = _counter(checkpoint, _STEP)
        names = checkpoint.files.distributed()
        optimizers = any(n.startswith("optimizer") for n in (*names.tensors, *names.objects))
        severity = Severity.ERROR if not optimizers and is_count(step) and step > 0 else None
        return replace(state, fields=(*state.fields, Field("optimizer", ("optimizer",), severity, _STOPS)))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The step in train_state.pt."""
        step = _counter(checkpoint, _STEP)
        return () if step is None else (Recorded("global_step", step, TRAIN_STATE, _STEP),)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the step; the data continue where the samples consumed say."""
        step, samples = _counter(checkpoint, _STEP), _counter(checkpoint, "consumed_train_samples")
        if not is_count(step):
            raise FactUnavailable(f"{TRAIN_STATE} holds no step", path=TRAIN_STATE, blocked=True)
        done = int(step)
        return Progress(global_step=done, expected_updates=done, plan=common.plan_after(done, samples))

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """The tracker beside `iter_N`."""
        return common.pointers(checkpoint)


def _counter(checkpoint: Checkpoint, name: str) -> object:
    """A counter, which Bridge keeps as a tensor; None where it is not there or can't be read."""
    return plain(dictionary_or_empty(checkpoint, TRAIN_STATE).get(name))

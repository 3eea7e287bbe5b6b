"""What other plugins may import of this one: saves of DeepSpeed inside of theirs."""

from __future__ import annotations

from ckpt_rules_deepspeed.backend import Zero
from ckpt_rules_deepspeed.files import LIGHTNING_TAG, Saved, find_saved, saved_in, saves_inside
from ckpt_rules_deepspeed.layout import DeepSpeed
from ckpt_rules_deepspeed.masters import masters_of
from ckpt_rules_deepspeed.pointers import pointers_of
from ckpt_rules_deepspeed.progress import contradictions_in
from ckpt_rules_deepspeed.ranks import ranks_of
from ckpt_rules_deepspeed.requirements import requirements_of
from ckpt_rules_deepspeed.states import (
    counted,
    loss_scaler,
    model_state,
    optimizers,
    part,
    readable,
    zero_stage,
)
from ckpt_rules_deepspeed.weights import weights_of

__all__ = [
    "LIGHTNING_TAG",
    "DeepSpeed",
    "Saved",
    "Zero",
    "contradictions_in",
    "counted",
    "find_saved",
    "loss_scaler",
    "masters_of",
    "model_state",
    "optimizers",
    "part",
    "pointers_of",
    "ranks_of",
    "readable",
    "requirements_of",
    "saved_in",
    "saves_inside",
    "weights_of",
    "zero_stage",
]

"""The facts that come with ckpt-rules and that layouts answer; each is an attribute of a checkpoint as well."""

from __future__ import annotations

from typing import Any

from ckpt_rules.fact import Fact
from ckpt_rules.facts.loaders import DataLoaders
from ckpt_rules.facts.pointers import Pointer
from ckpt_rules.facts.ranks import Ranks
from ckpt_rules.facts.seal import Seal
from ckpt_rules.facts.tensors import Weights
from ckpt_rules.facts.training import (
    Contradiction,
    ModelConfig,
    OptimizerState,
    Progress,
    Recorded,
    RngState,
    ScalerState,
    SchedulerState,
    TrainingState,
)
from ckpt_rules.facts.values import Master
from ckpt_rules.seal_file import read_seal
from ckpt_rules.traits import Requirement


def _seal(checkpoint: Any) -> Seal:
    return read_seal(checkpoint.files)


REQUIREMENTS: Fact[tuple[Requirement, ...]] = Fact("requirements", tuple, "files that a resume needs")
WEIGHTS = Fact("weights", Weights, "weights")
STATE = Fact("state", TrainingState, "training state")
OPTIMIZER = Fact("optimizer", OptimizerState, "optimizer")
OPTIMIZERS: Fact[tuple[OptimizerState, ...]] = Fact("optimizers", tuple, "optimizers")
SCHEDULER = Fact("scheduler", SchedulerState, "scheduler")
SCHEDULERS: Fact[tuple[SchedulerState, ...]] = Fact("schedulers", tuple, "schedulers")
SCALER = Fact("scaler", ScalerState, "gradient scaler")
RNG = Fact("rng", RngState, "random-number state")
RNGS: Fact[tuple[RngState, ...]] = Fact("rngs", tuple, "random-number states of ranks")
CONFIG = Fact("config", ModelConfig, "model configuration")
RECORDED: Fact[tuple[Recorded, ...]] = Fact("recorded", tuple, "recorded progress")
PROGRESS = Fact("progress", Progress, "recorded progress")
CONTRADICTIONS: Fact[tuple[Contradiction, ...]] = Fact("contradictions", tuple, "counters that can't both be right")
DATALOADERS = Fact("dataloaders", DataLoaders, "state of data loaders")
RANKS = Fact("ranks", Ranks, "files of several ranks")
POINTERS: Fact[tuple[Pointer, ...]] = Fact("pointers", tuple, "files that name a save")
MASTERS: Fact[tuple[Master, ...]] = Fact("masters", tuple, "float32 master copies of its weights")

SEAL = Fact("seal", Seal, "seal", _seal)

KNOWN: tuple[Fact[object], ...] = (
    REQUIREMENTS, WEIGHTS, STATE, OPTIMIZER, OPTIMIZERS, SCHEDULER, SCHEDULERS, SCALER, RNG, RNGS, CONFIG, RECORDED, PROGRESS,
    CONTRADICTIONS, DATALOADERS, RANKS, POINTERS, MASTERS, SEAL,
)  # type: ignore[assignment]  # fmt: skip
"""All of them."""

"""torch's `state_dict` conventions: plain values -> optimizer, scheduler, scaler and RNG facts."""

from __future__ import annotations

from ckpt_rules.facts.tensors import JsonFile
from ckpt_rules.facts.training import ModelConfig, OptimizerState, RngState, ScalerState, SchedulerState


def optimizer(value: object, path: str, key: str | None) -> OptimizerState:
    """An optimizer's `state_dict`."""
    raise NotImplementedError


def scheduler(value: object, path: str, key: str | None) -> SchedulerState:
    """A scheduler's `state_dict`."""
    raise NotImplementedError


def scaler(value: object, path: str, key: str | None) -> ScalerState:
    """A gradient scaler's `state_dict`."""
    raise NotImplementedError


def rng(value: object, path: str, key: str | None) -> RngState:
    """RNG state."""
    raise NotImplementedError


def config_file(file: JsonFile) -> ModelConfig:
    """A model's `config.json`."""
    raise NotImplementedError

"""What the checks of optimizer/param-mismatch compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, OptimizerState, Place
from ckpt_rules_training.words import inside

Shape = tuple[int, ...]

HELP = "take weights and optimizer from the same save; if the model has changed, start with a fresh optimizer"


@dataclass(frozen=True, slots=True)
class Sides:
    """An optimizer, and what its parameters may be.

    shapes: that of each parameter's moments; none where the optimizer keeps other things as well
    pool:   those of the weights, and of other tensors that the state keeps
    """

    checkpoint: Checkpoint
    optimizer: OptimizerState
    shapes: Mapping[object, Shape]
    pool: list[Shape]


def place_of(optimizer: OptimizerState, parameter: object) -> Place:
    """The state of one parameter."""
    return Place(path=optimizer.path, key=inside(optimizer.key, f"state[{parameter}]"))

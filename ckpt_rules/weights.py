"""Which files hold the model weights, by the naming conventions that trainers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.tensors import Weights


def find_weights(checkpoint: Checkpoint) -> Weights:
    """The weights at the top of a checkpoint."""
    raise NotImplementedError


def weights_in(checkpoint: Checkpoint, path: str, keys: tuple[str, ...]) -> Weights:
    """The weights inside a one-file checkpoint."""
    raise NotImplementedError

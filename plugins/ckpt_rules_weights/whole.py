"""Weights that are all there, for rules that compare them with something else."""

from __future__ import annotations

from ckpt_rules import Checkpoint, FactUnavailable, Weights


def whole_weights(checkpoint: Checkpoint) -> Weights:
    """The weights; FactUnavailable, blocked, where a damaged or missing file hides a part of them."""
    return whole(checkpoint.weights)


def whole(weights: Weights) -> Weights:
    """The same weights, or FactUnavailable as above."""
    for file in weights.broken:
        raise FactUnavailable(f"{file.path} is damaged", path=file.path, blocked=True)
    read = {f.path for f in weights.files}
    for name in weights.expected:
        if name not in read:
            raise FactUnavailable(f"{name} is missing", path=name, blocked=True)
    return weights

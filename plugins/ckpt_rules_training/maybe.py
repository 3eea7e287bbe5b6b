"""Facts that a rule can do without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ckpt_rules import Checkpoint, FactUnavailable

T = TypeVar("T")


def maybe(ask: Callable[[], T]) -> T | None:
    """What a fact says, or None where it is not available."""
    try:
        return ask()
    except FactUnavailable:
        return None


def updates_of(checkpoint: Checkpoint) -> int | None:
    """Optimizer updates done, or None where nobody counted them."""
    return maybe(lambda: checkpoint.optimizer.updates)


def is_scaled(checkpoint: Checkpoint) -> bool:
    """Whether a gradient scaler is in use, which skips updates that overflow."""
    return bool(maybe(lambda: checkpoint.scaler.enabled))

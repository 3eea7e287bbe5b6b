"""What a checkpoint of the kit was trained with, and the parts that training leaves behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the tiny model is trained.

    config:    the model's configuration
    updates:   optimizer updates that its counters shall say
    epochs:    finished epochs, which ReduceLROnPlateau counts
    optimizer: name of a class in `torch.optim`, or None
    options:   of the optimizer
    scheduler: `cosine`, `lambda`, `step`, `plateau`, or None
    planned:   optimizer updates after which a cosine schedule has come down to zero
    scaler:    True for a gradient scaler in use, False for a disabled one, None for none
    rng:       True for the state of python's and torch's generators, "numpy" for NumPy's as well
    dtype:     of the weights, and of the optimizer's moments
    """

    config: Mapping[str, Any]
    updates: int
    epochs: int
    optimizer: str | None
    options: Mapping[str, Any]
    scheduler: str | None
    planned: int
    scaler: bool | None
    rng: bool | str
    dtype: str

    @property
    def seed(self) -> int:
        """Of every number drawn: another for each step, so that no two saves of a run hold the same weights."""
        return 1234 + self.updates

    @property
    def lr(self) -> float:
        """The learning rate that training started with."""
        return float(self.options.get("lr", 1e-3))

    def factor(self, update: int) -> float:
        """What the scheduler multiplies the first learning rate with after so many updates."""
        if self.scheduler in ("cosine", "lambda"):
            return (1 + math.cos(math.pi * update / self.planned)) / 2
        return 0.1 ** (update // self.planned) if self.scheduler == "step" else 1.0

    def scaler_state(self) -> dict[str, Any] | None:
        """What `GradScaler.state_dict` gives: the scale doubles every 2,000 updates; `{}` where it is disabled."""
        if not self.scaler:
            return None if self.scaler is None else {}
        interval = 2000
        return {
            "scale": 65536.0 * 2.0 ** min(self.updates // interval, 8),
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": interval,
            "_growth_tracker": self.updates % interval,
        }


@dataclass(frozen=True, slots=True)
class Parts:
    """State dictionaries, of torch tensors or of the kit's own; None for a part that there is not."""

    weights: dict[str, Any]
    optimizer: dict[str, Any] | None
    scheduler: dict[str, Any] | None
    scaler: dict[str, Any] | None
    rng: dict[str, Any] | None


def is_decayed(shape: tuple[int, ...]) -> bool:
    """Whether a parameter belongs to the group with weight decay: matrices do, norms do not."""
    return len(shape) > 1

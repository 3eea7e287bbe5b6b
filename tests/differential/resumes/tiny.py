"""A model, its data and its optimizer, for trainers that bring none."""

from __future__ import annotations

from typing import Any

ROWS, BATCH = 16, 2


def model() -> Any:
    """A few layers of different shapes."""
    from torch import nn

    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 3))


def rows() -> Any:
    """Inputs, the same for everybody."""
    import torch

    return torch.linspace(-1, 1, ROWS * 6).reshape(ROWS, 6).sin()


def loss(outputs: Any) -> Any:
    """Something to make smaller."""
    return (outputs - 0.5).square().mean()


def optimizer(of: Any) -> Any:
    """AdamW with two groups, as training scripts have it."""
    import torch

    decayed = [p for p in of.parameters() if p.ndim > 1]
    others = [p for p in of.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01
    )


def scheduler(of: Any) -> Any:
    """Cosine over twelve updates."""
    import torch

    return torch.optim.lr_scheduler.CosineAnnealingLR(of, T_max=12)

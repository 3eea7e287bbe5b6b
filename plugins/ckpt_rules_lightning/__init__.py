"""PyTorch Lightning's checkpoints: one `.ckpt` file with weights, optimizers, schedulers and the counters of its loops."""

from __future__ import annotations

from ckpt_rules import Layout, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """Lightning's layout."""
    from ckpt_rules_lightning.layout import Lightning

    return [Lightning()]

"""PyTorch Lightning's checkpoints: one `.ckpt` file, or the directory that its FSDP and DeepSpeed strategies write."""

from __future__ import annotations

from ckpt_rules import Layout, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The file, and two kinds of directories."""
    from ckpt_rules_lightning.deepspeed import LightningDeepSpeed
    from ckpt_rules_lightning.layout import Lightning
    from ckpt_rules_lightning.sharded import LightningSharded

    return [Lightning(), LightningSharded(), LightningDeepSpeed()]

"""What DeepSpeed's `save_checkpoint` writes: ZeRO partitions, experts, pipeline layers, universal checkpoints."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The layout of `save_checkpoint`."""
    from ckpt_rules_deepspeed.layout import DeepSpeed

    return [DeepSpeed()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The rule about flat groups of parameters."""
    from ckpt_rules_deepspeed.flat_groups import FlatGroupNumel

    return [FlatGroupNumel]

"""Megatron-core's checkpoints, those of older Megatron-LM, and NeMo's around them."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """The distributed form, with or without NeMo's directories, that of Megatron-FSDP, and that of a file for each rank."""
    from ckpt_rules_megatron.distributed import MegatronDistributed
    from ckpt_rules_megatron.fsdp import MegatronFsdp
    from ckpt_rules_megatron.ranks import MegatronRanks

    return [MegatronDistributed(), MegatronFsdp(), MegatronRanks()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """What only pipeline stages, and the tensors of a distributed save, can be asked."""
    from ckpt_rules_megatron.layers import LayerRange
    from ckpt_rules_megatron.sharded_parts import MissingMoment

    return [LayerRange, MissingMoment]

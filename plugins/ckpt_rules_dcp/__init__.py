"""Checkpoints of torch.distributed.checkpoint: `.metadata`, and `.distcp` files of every rank."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """DCP's own form, its safetensors form, and the files of torch_checkpointing, which torchtitan may use in its place."""
    from ckpt_rules_dcp.layout import Distributed
    from ckpt_rules_dcp.safetensors import DistributedSafetensors
    from ckpt_rules_dcp.torch_checkpointing import TorchCheckpointing

    return [Distributed(), DistributedSafetensors(), TorchCheckpointing()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """Whether what `.metadata` promises is in the files, in whichever layout it lies; and what a load would ask for."""
    from ckpt_rules_dcp.coverage import ChunkCoverage, UnreferencedFile
    from ckpt_rules_dcp.untrained import UntrainedParameter

    return [ChunkCoverage, UnreferencedFile, UntrainedParameter]

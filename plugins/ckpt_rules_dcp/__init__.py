"""Checkpoints of torch.distributed.checkpoint: `.metadata`, and `.distcp` files of every rank."""

from __future__ import annotations

from ckpt_rules import Layout, Rule, hookimpl


@hookimpl
def ckpt_rules_layouts() -> list[Layout]:
    """DCP's own form, and its safetensors form."""
    from ckpt_rules_dcp.layout import Distributed
    from ckpt_rules_dcp.safetensors import DistributedSafetensors

    return [Distributed(), DistributedSafetensors()]


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """Whether what `.metadata` promises is in the files; in whichever layout it lies."""
    from ckpt_rules_dcp.coverage import ChunkCoverage, UnreferencedFile

    return [ChunkCoverage, UnreferencedFile]

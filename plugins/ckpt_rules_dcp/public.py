"""What other plugins may import of this one: saves of torch.distributed.checkpoint inside of theirs."""

from __future__ import annotations

from ckpt_rules_dcp import saved
from ckpt_rules_dcp.fsdp import Fsdp, Parts, find_parts, first_paths, missing_parts, purposes_of, uncommitted
from ckpt_rules_dcp.layout import Distributed
from ckpt_rules_dcp.nodes import whole_metadata, why_elsewhere
from ckpt_rules_dcp.saved import METADATA, Small, why_unread

__all__ = [
    "METADATA",
    "Distributed",
    "Fsdp",
    "Parts",
    "Small",
    "find_parts",
    "first_paths",
    "missing_parts",
    "purposes_of",
    "saved",
    "uncommitted",
    "whole_metadata",
    "why_elsewhere",
    "why_unread",
]

"""What other plugins may import of this one: saves of torch.distributed.checkpoint inside of theirs."""

from __future__ import annotations

from ckpt_rules_dcp import saved
from ckpt_rules_dcp.layout import Distributed
from ckpt_rules_dcp.nodes import why_elsewhere
from ckpt_rules_dcp.saved import METADATA, Small, why_unread

__all__ = [
    "METADATA",
    "Distributed",
    "Small",
    "saved",
    "why_elsewhere",
    "why_unread",
]

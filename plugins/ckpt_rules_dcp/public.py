"""What other plugins may import of this one: saves of torch.distributed.checkpoint inside of theirs."""

from __future__ import annotations

from ckpt_rules_dcp import saved
from ckpt_rules_dcp.layout import Distributed
from ckpt_rules_dcp.nodes import FILE, why_elsewhere
from ckpt_rules_dcp.saved import METADATA, Small, why_unread

__all__ = [
    "FILE",
    "METADATA",
    "Distributed",
    "Small",
    "saved",
    "why_elsewhere",
    "why_unread",
]

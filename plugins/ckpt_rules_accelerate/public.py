"""What other plugins may import of this one: FSDP's and DeepSpeed's files as Accelerate names them."""

from __future__ import annotations

from ckpt_rules_accelerate import fsdp, zero
from ckpt_rules_accelerate.fsdp import Fsdp, Parts, find_parts, first_paths, missing_parts, uncommitted
from ckpt_rules_accelerate.needs import SHARDED, purposes_of
from ckpt_rules_accelerate.zero import Zero

__all__ = [
    "SHARDED",
    "Fsdp",
    "Parts",
    "Zero",
    "find_parts",
    "first_paths",
    "fsdp",
    "missing_parts",
    "purposes_of",
    "uncommitted",
    "zero",
]

"""What other plugins may import of this one: adapters inside of their saves."""

from __future__ import annotations

from ckpt_rules_peft.encoders import behind
from ckpt_rules_peft.layout import CONFIG, WEIGHTS, adapters, configuration, inside
from ckpt_rules_peft.resumed import starts_anew

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "adapters",
    "behind",
    "configuration",
    "inside",
    "starts_anew",
]

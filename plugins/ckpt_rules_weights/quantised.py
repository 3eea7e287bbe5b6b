"""How quantised weights are known: by names that only they have, and by a configuration that says how they were made."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, Weights

QUANTISED = re.compile(
    r".*\.(?:qweight|qzeros|SCB|weight_packed|weight\.absmax|weight\.quant_map|weight\.quant_state\..+)"
)
_PACKED = frozenset(
    {"qweight", "qzeros", "SCB", "W_q", "weight_packed", "weight_scale", "weight_scale_inv", "input_scale"}
)
_PARTS_OF_A_WEIGHT = (".weight.", ".weight:_")
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json")


def is_declared(checkpoint: Checkpoint, config: Mapping[str, object]) -> bool:
    """Whether a configuration says that the weights are quantised, and how; MLX and others have keys of their own for it."""
    own = {"quantization_config", "compression_config"} & config.keys() or any(
        "quant" in key.lower() and isinstance(value, Mapping) for key, value in config.items()
    )
    return bool(own) or any(map(checkpoint.listing.has_file, _FILES))


def is_quantised(weights: Weights, config: Mapping[str, object], checkpoint: Checkpoint) -> bool:
    """Whether the weights are packed, or scaled, under names of their own."""
    return is_declared(checkpoint, config) or any(
        name.rpartition(".")[2] in _PACKED or any(part in name for part in _PARTS_OF_A_WEIGHT)
        for _, name, _ in weights.items()
    )

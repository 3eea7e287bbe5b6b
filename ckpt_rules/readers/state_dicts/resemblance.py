"""What a stored value looks like, for one that lies where another belongs: told by the keys that its writer always uses."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_rules.facts.tensors import TensorInfo
from ckpt_rules.facts.training import TORCH_STATE_BYTES

OPTIMIZER = "the state_dict of an optimizer"
SCHEDULER = "the state_dict of a learning-rate scheduler"
SCALER = "the state_dict of a gradient scaler"
RANDOM = "the states of random-number generators"
PARTITION = "one rank's partition of a DeepSpeed ZeRO optimizer"
WEIGHTS = "a model's weights"
LOOP = "the progress of one of Lightning's loops"

_PARTITIONED = frozenset({"zero_stage", "partition_count", "single_partition_of_fp32_groups", "fp32_flat_groups"})
_LOOPS = frozenset({"epoch_progress", "epoch_loop.batch_progress", "fit_loop"})
_GENERATORS = ({"python", "cpu"}, {"random_state", "torch_manual_seed"})


def resemblance(value: object) -> str | None:
    """One of the constants above; None for what resembles none of them, and for an empty dictionary."""
    if not isinstance(value, Mapping) or not value:
        return None
    if ("param_groups" in value and "state" in value) or _is_flattened_optimizer(value):
        return OPTIMIZER
    inner = value.get("optimizer_state_dict")
    if any(_PARTITIONED & v.keys() for v in (value, inner) if isinstance(v, Mapping)):
        return PARTITION
    if "base_lrs" in value or ("last_epoch" in value and "_step_count" in value):
        return SCHEDULER
    if "growth_factor" in value and "scale" in value:
        return SCALER
    if any(names <= value.keys() for names in _GENERATORS):
        return RANDOM
    if _LOOPS & value.keys() or _is_tracker(value):
        return LOOP
    tensors = [v for v in value.values() if isinstance(v, TensorInfo)]
    if len(tensors) < len(value):
        return None
    if any(t.dtype == "uint8" and len(t.shape) == 1 and t.shape[0] in TORCH_STATE_BYTES for t in tensors):
        return RANDOM
    return WEIGHTS if any(t.shape and "float" in t.dtype for t in tensors) else None


def _is_flattened_optimizer(value: Mapping[object, object]) -> bool:
    """Whether its keys are those of a distributed save, `param_groups.layer.weight.lr`."""
    return any(isinstance(key, str) and key.startswith("param_groups.") for key in value)


def _is_tracker(value: Mapping[object, object]) -> bool:
    """Whether it counts what is ready, started, processed and completed, in all and of late."""
    total = value.get("total")
    return "current" in value and isinstance(total, Mapping) and {"ready", "completed"} <= total.keys()

"""What a value in a state looks like, whatever its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt_rules import TensorInfo, plain


def is_optimizer(value: object) -> bool:
    """An optimizer's `state_dict`, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_optimizer, value))
    return isinstance(value, Mapping) and "param_groups" in value and "state" in value


def is_scheduler(value: object) -> bool:
    """A scheduler's `state_dict`, or a list of them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(is_scheduler, value))
    return isinstance(value, Mapping) and "_last_lr" in value


def is_scaler(value: object) -> bool:
    """A gradient scaler's `state_dict`; empty for a disabled one."""
    return value == {} or (isinstance(value, Mapping) and bool({"scale", "cur_scale", "loss_scaler0"} & set(value)))


def is_weights(value: object) -> bool:
    """Tensors by name. A dictionary with parameter groups is an optimizer's."""
    return (
        isinstance(value, Mapping)
        and "param_groups" not in value
        and any(isinstance(v, TensorInfo) and v.shape for v in value.values())
    )


def is_models(value: object) -> bool:
    """Weights, or those of several models by name or in a list."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return is_weights(value) or (bool(parts) and all(map(is_weights, parts)))


def is_number(value: object) -> bool:
    """A number of any kind; booleans are none."""
    value = plain(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_scheduling(value: object) -> bool:
    """One scheduler's `state_dict`, of a kind that may keep no rates as well."""
    return isinstance(value, Mapping) and (is_scheduler(value) or {"num_bad_epochs", "last_epoch"} <= value.keys())


def first(values: Mapping[object, object], names: Sequence[str]) -> str | None:
    """The first of several keys that is there with a value."""
    return next((n for n in names if values.get(n) is not None), None)

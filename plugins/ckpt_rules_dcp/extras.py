"""Gradient scaler and random-number state in a distributed checkpoint, told by their names and by what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, FactUnavailable, RngState, ScalerState, TensorInfo, state_dicts
from ckpt_rules_dcp.saved import Small

_SCALER = re.compile(r"((?:grad_|gradient_)?scaler)(?:\.(\w+))?")
_GENERATORS = re.compile(r"(rng|rng_states?|random_states?)(?:\.(.+))?")
_ALWAYS_SCALED = {"scale", "growth_factor", "backoff_factor"}


def scaler_of(small: Small, path: str) -> ScalerState:
    """The scaler's `state_dict`, in one object or put together again; what is merely called so is left alone."""
    found = _under(_SCALER, small.values, small.lead)
    for name, state in found.items():
        if state.keys() >= _ALWAYS_SCALED:
            return state_dicts.scaler(state, path, name)
    raise FactUnavailable("there is no gradient scaler under a name that is known")


def rng_of(checkpoint: Checkpoint, small: Small) -> RngState:
    """Generators under a common name: torch's bytes, or one entry for each."""
    metadata = checkpoint.files.distributed()
    tensors = {n: TensorInfo(t.dtype, t.shape, 0) for n, t in metadata.tensors.items() if t.shape}
    for name, state in _under(_GENERATORS, {**tensors, **small.values}, small.lead).items():
        whole = state.get("")
        rng = state_dicts.rng(state if whole is None else whole, metadata.path, name)
        if rng.sources and not (isinstance(whole, TensorInfo) and whole.dtype != "uint8"):
            return rng
    raise FactUnavailable("there is no random-number state under a name that is known")


def _under(pattern: re.Pattern[str], values: Mapping[str, object], lead: str) -> dict[str, dict[str, object]]:
    """Dictionaries whose names a pattern knows, whether they were flattened or not; '' for what is none."""
    found: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        if not (match := pattern.fullmatch(key.removeprefix(lead))):
            continue
        inside = {match[2]: value} if match[2] else value if isinstance(value, Mapping) else {"": value}
        found.setdefault(match[1], {}).update({str(k): v for k, v in inside.items()})
    return found

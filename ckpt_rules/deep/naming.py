"""Which of the tensors in a checkpoint's files are weights, and what the model calls them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from ckpt_rules.conventions.state_dict_keys import DISTRIBUTED_MODEL
from ckpt_rules.deep.locate import find_tensors

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.tensors import Weights
    from ckpt_rules.facts.values import Located

_Place: TypeAlias = tuple[str, int, tuple[int, ...]]
_MODEL_KEYS = (*(f"{key}." for key in DISTRIBUTED_MODEL), "app.model.")


def names_of_weights(checkpoint: Checkpoint) -> Mapping[tuple[str, str], str]:
    """By file and stored name: the name in the model of each tensor that is a weight. A fact."""
    known = checkpoint.weights
    places = _places(known)
    distributed = {name for file in known.files if file.format == "dcp" for name in file.tensors}
    return {
        (tensor.path, tensor.name): name
        for tensor in checkpoint.fact(find_tensors)
        if (name := _at(tensor, places) or _among(tensor.name, distributed)) is not None
    }


def _places(weights: Weights) -> dict[_Place, list[str]]:
    """The names of the weights that begin at a byte of a file; tied ones share it."""
    found: dict[_Place, list[str]] = defaultdict(list)
    for file, name, tensor in weights.items():
        if tensor.offset is not None and tensor.numel:
            element = tensor.nbytes // tensor.numel
            found[file.path, tensor.offset + tensor.first * element, tensor.shape].append(name)
    return found


def _at(tensor: Located, places: Mapping[_Place, list[str]]) -> str | None:
    if not tensor.blocks:
        return None
    names = places.get((tensor.blocks[0].path, tensor.blocks[0].offset, tensor.shape), [])
    return next((n for n in names if tensor.name.endswith(n)), names[0] if names else None)


def _among(stored: str, names: set[str]) -> str | None:
    """The name that a tensor of a distributed checkpoint has in the model."""
    if stored in names:
        return stored
    return next((s for key in _MODEL_KEYS if stored.startswith(key) and (s := stored.removeprefix(key)) in names), None)

"""Tensors whose names differ only in numbers, taken together: a model has many layers and experts, and few kinds of tensor."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from ckpt_rules import Checkpoint, TensorInfo, WeightFile

_NUMBER = re.compile(r"\.\d+(?=\.)")

Located = tuple[WeightFile, str, TensorInfo]


def tensor_kinds(checkpoint: Checkpoint) -> Mapping[str, list[Located]]:
    """Every loaded tensor, by its name with each number between dots read as `*`."""
    return checkpoint.fact(_tensor_kinds)


def _tensor_kinds(checkpoint: Checkpoint) -> Mapping[str, list[Located]]:
    kinds: dict[str, list[Located]] = defaultdict(list)
    replace = _NUMBER.sub
    for located in checkpoint.weights.items():
        kinds[replace(".*", located[1])].append(located)
    return kinds

"""The shapes of everything that may be a parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, OptimizerState, TensorInfo
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.params.sides import Shape
from ckpt_rules_training.words import listed

_MAX_NESTING = 4


def pool_of(checkpoint: Checkpoint, optimizer: OptimizerState) -> list[Shape]:
    """Shapes of everything that may be a parameter: the weights, and other tensors that the state keeps."""
    return checkpoint.fact(_all_shapes, optimizer.key.partition("[")[0])


def _all_shapes(checkpoint: Checkpoint, key: str) -> list[Shape]:
    """The same for all optimizers under one key, each of a rank: they are many, and are told once."""
    weights = checkpoint.weights
    broken = next(iter(weights.broken), None)
    if broken is not None:
        raise FactUnavailable(f"{broken.path} is damaged", path=broken.path, blocked=True)
    present = {f.path for f in weights.files}
    missing = [
        name for name in weights.expected if name not in present and not any(p.endswith(f"/{name}") for p in present)
    ]
    if missing:
        raise FactUnavailable(f"the weights are incomplete: {listed(missing)} is missing")
    state = maybe(lambda: checkpoint.state.path)
    outside = [t.shape for f, _, t in weights.items() if f.path != state or not f.key or _is_pickled(checkpoint, f.key)]
    return [*outside, *weights.behind, *_beside(checkpoint, key)]


def _is_pickled(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a key of the state holds a whole module, whose tensors are not among the state's own."""
    state = maybe(lambda: checkpoint.state)
    return state is not None and isinstance(state.values.get(key), Opaque)


def _beside(checkpoint: Checkpoint, own: str) -> list[Shape]:
    values = maybe(lambda: checkpoint.state.values) or {}
    return [t.shape for k, v in values.items() if k != own for t in _tensors(v, _MAX_NESTING)]


def _tensors(value: object, depth: int) -> Iterator[TensorInfo]:
    if isinstance(value, TensorInfo):
        if "float" in value.dtype or "complex" in value.dtype:  # random-number states are bytes
            yield value
    elif isinstance(value, Mapping) and depth and "param_groups" not in value:
        for part in value.values():
            yield from _tensors(part, depth - 1)

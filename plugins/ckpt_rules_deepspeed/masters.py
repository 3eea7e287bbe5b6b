"""Where ZeRO keeps the float32 master copy of each weight: in the flat partitions, one parameter behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Block, Checkpoint, FactUnavailable, Master, TensorInfo, flatten
from ckpt_rules_deepspeed.files import Saved
from ckpt_rules_deepspeed.states import OPTIMIZER, dictionary, flat_groups, part, partition_count

_NBYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def masters_of(checkpoint: Checkpoint, saved: Saved) -> tuple[Master, ...]:
    """Those of stages 1 and 2, and of the bf16 optimizer, whose weights are saved whole in the model states.

    FactUnavailable where there are none: under stage 3 the partitions are the only copy.
    """
    if saved.experts or saved.layers:
        raise FactUnavailable("the weights are spread over files of experts or layers")
    found = [m for rank, path in sorted(saved.model.items()) for m in _of_rank(checkpoint, saved, rank, path)]
    if not found:
        raise FactUnavailable("there are no weights beside float32 master copies of them")
    return tuple(found)


def _of_rank(checkpoint: Checkpoint, saved: Saved, rank: int, model: str) -> Iterator[Master]:
    states = [dictionary(checkpoint, path) for path in _partitions(saved, rank)]
    if not states or any(partition_count(part(state, OPTIMIZER)) != len(states) for state in states):
        return  # ranks/missing-file says so
    pieces = [flat_groups(part(state, OPTIMIZER)) for state in states]
    values = dictionary(checkpoint, model)
    groups = values.get("param_shapes")
    weights = flatten(part(values, "module"))
    for number, shapes in enumerate(groups if isinstance(groups, list | tuple) else []):
        flats = [p[number] for p in pieces if p and number < len(p)]
        if len(flats) == len(states):
            yield from _of_group(part(shapes), weights, model, list(zip(_partitions(saved, rank), flats, strict=True)))


def _partitions(saved: Saved, rank: int) -> list[str]:
    return [path for (_, mp), path in sorted(saved.optimizer_parts.items()) if mp == rank]


def _of_group(
    shapes: Mapping[object, object], weights: Mapping[str, TensorInfo], model: str, flats: list[tuple[str, TensorInfo]]
) -> Iterator[Master]:
    """Cut the partitions of one group apart by the shapes of its parameters."""
    first = 0
    for name, shape in shapes.items():
        numel = 1
        for size in shape if isinstance(shape, list | tuple) else ():
            numel *= size if isinstance(size, int) and size > 0 else 0
        weight = weights.get(str(name))
        saved = _block(model, weight) if weight is not None and weight.numel == numel else None
        parts = tuple(_cut(flats, first, first + numel))
        if saved is not None and sum(p.nbytes for p in parts) == numel * _NBYTES["float32"]:
            yield Master(str(name), saved, parts)
        first += numel


def _block(path: str, tensor: TensorInfo) -> Block | None:
    nbytes = _NBYTES.get(tensor.dtype)
    if nbytes is None or tensor.offset is None or tensor.strides is not None or not tensor.numel:
        return None
    return Block(path, tensor.offset + tensor.first * nbytes, tensor.nbytes, tensor.dtype)


def _cut(flats: list[tuple[str, TensorInfo]], start: int, stop: int) -> Iterator[Block]:
    """The blocks that hold elements `start` to `stop` of all partitions together."""
    at = 0
    for path, flat in flats:
        low, high = max(start, at), min(stop, at + flat.numel)
        whole = _block(path, flat)
        if low < high and whole is not None and flat.dtype == "float32":
            yield whole._replace(offset=whole.offset + (low - at) * 4, nbytes=(high - low) * 4)
        at += flat.numel

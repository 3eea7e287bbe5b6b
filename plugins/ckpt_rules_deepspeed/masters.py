"""Where ZeRO keeps the float32 master copy of each weight: in the flat partitions, one parameter behind the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Block, Checkpoint, FactUnavailable, Master, TensorInfo, dictionary, flatten
from ckpt_rules_deepspeed.files import Saved
from ckpt_rules_deepspeed.states import OPTIMIZER, copies_of, flat_groups, part, partition_count

_OTHER_ORDER = "use_data_before_expert_parallelism"
_NBYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


_EXPERT = re.compile(r"(?P<before>(?:.*\.)?deepspeed_experts\.)(?P<number>\d{1,6})(?P<after>\..*)")

# Where a weight is saved, by its name.
_Weights = Mapping[str, tuple[str, TensorInfo]]
# The pieces of one flat group: path and tensor of each rank's.
_Flats = list[tuple[str, TensorInfo]]


def masters_of(checkpoint: Checkpoint, saved: Saved) -> tuple[Master, ...]:
    """Those of stages 1 and 2, of the bf16 optimizer and of universal checkpoints, whose weights are saved whole as well.

    FactUnavailable where there are none: under stage 3 the partitions are the only copy.
    """
    if (saved.experts and len(saved.model) > 1) or any(mp for _, mp in saved.layers):
        raise FactUnavailable("the weights are spread over files of several kinds of parallel ranks")
    found = [m for rank, path in sorted(saved.model.items()) for m in _of_rank(checkpoint, saved, rank, path)]
    if saved.universal and len(saved.model) == 1:
        found = list(_of_universal(checkpoint, saved, next(iter(saved.model.values()))))
    if not found:
        raise FactUnavailable("there are no weights that have float32 master copies")
    return tuple(found)


def _of_rank(checkpoint: Checkpoint, saved: Saved, rank: int, model: str) -> Iterator[Master]:
    paths = [path for (_, mp), path in sorted(saved.optimizer_parts.items()) if mp == rank]
    states = [part(dictionary(checkpoint, path), OPTIMIZER) for path in paths]
    if not states or any(partition_count(state) != len(states) for state in states):
        return  # ranks/missing-file says so
    pieces = [flat_groups(state) for state in states]
    values = dictionary(checkpoint, model)
    weights = dict(_weights(checkpoint, saved, model))
    groups = values.get("param_shapes")
    for number, shapes in enumerate(groups if isinstance(groups, list | tuple) else []):
        flats = [(path, p[number]) for path, p in zip(paths, pieces, strict=True) if p and number < len(p)]
        if len(flats) < len(states):
            continue
        sets = copies_of(states[0], number, len(states))
        if sets > 1 and (values.get("ds_autoep_layers") or part(values, "ds_config").get(_OTHER_ORDER)):
            continue
        for expert_rank in range(sets):
            names = _named(part(shapes), expert_rank)
            yield from _of_group(names, weights, flats[expert_rank::sets])


def _of_universal(checkpoint: Checkpoint, saved: Saved, model: str) -> Iterator[Master]:
    """A universal checkpoint keeps each master in a file of its own."""
    for name, (path, weight) in _weights(checkpoint, saved, model):
        own = saved.universal.get(name, {}).get("fp32")
        copy = dictionary(checkpoint, own).get("param") if own else None
        if own is None or not isinstance(copy, TensorInfo) or copy.dtype != "float32" or copy.shape != weight.shape:
            continue
        blocks = _block(path, weight), _block(own, copy)
        if blocks[0] is not None and blocks[1] is not None:
            yield Master(name, blocks[0], (blocks[1],))


def _weights(checkpoint: Checkpoint, saved: Saved, model: str) -> Iterator[tuple[str, tuple[str, TensorInfo]]]:
    """Those of the model states; of a pipeline's layers, led by their number; and of experts, each in a file of its own."""
    for name, tensor in flatten(part(dictionary(checkpoint, model), "module")).items():
        yield name, (model, tensor)
    for (layer, _), path in saved.layers.items():
        for name, tensor in flatten(dictionary(checkpoint, path)).items():
            yield f"{layer}.{name}", (path, tensor)
    for path in saved.experts.values():
        for name, tensor in flatten(dictionary(checkpoint, path)).items():
            yield name, (path, tensor)


def _named(shapes: Mapping[object, object], expert_rank: int) -> dict[str, object]:
    """The shapes of a group by the names of the weights: each rank counts its experts from 0, and files count them all."""
    matches = {str(name): _EXPERT.fullmatch(str(name)) for name in shapes}
    local = len({m["number"] for m in matches.values() if m})
    named = {}
    for (name, match), shape in zip(matches.items(), shapes.values(), strict=True):
        number = f"{match['before']}{int(match['number']) + expert_rank * local}{match['after']}" if match else name
        named[number] = shape
    return named


def _of_group(shapes: Mapping[str, object], weights: _Weights, flats: _Flats) -> Iterator[Master]:
    """Cut the partitions of one group apart by the shapes of its parameters."""
    first = 0
    for name, shape in shapes.items():
        numel = 1
        for size in shape if isinstance(shape, list | tuple) else ():
            numel *= size if isinstance(size, int) and size > 0 else 0
        path, weight = weights.get(name, ("", None))
        saved = _block(path, weight) if weight is not None and weight.numel == numel else None
        parts = tuple(_cut(flats, first, first + numel))
        if saved is not None and sum(p.nbytes for p in parts) == numel * _NBYTES["float32"]:
            yield Master(name, saved, parts)
        first += numel


def _block(path: str, tensor: TensorInfo) -> Block | None:
    nbytes = _NBYTES.get(tensor.dtype)
    if nbytes is None or tensor.offset is None or tensor.strides is not None or not tensor.numel:
        return None
    return Block(path, tensor.offset + tensor.first * nbytes, tensor.nbytes, tensor.dtype)


def _cut(flats: _Flats, start: int, stop: int) -> Iterator[Block]:
    """The blocks that hold elements `start` to `stop` of all partitions together."""
    at = 0
    for path, flat in flats:
        low, high = max(start, at), min(stop, at + flat.numel)
        whole = _block(path, flat)
        if low < high and whole is not None and flat.dtype == "float32":
            yield whole._replace(offset=whole.offset + (low - at) * 4, nbytes=(high - low) * 4)
        at += flat.numel

"""Where the weights of a save are: whole, in pieces of several files, or as shapes of partitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    ReadProblem,
    TensorInfo,
    WeightFile,
    Weights,
    dictionary,
    flatten,
)
from ckpt_rules_deepspeed.files import Saved
from ckpt_rules_deepspeed.states import part, readable

_FLOAT32_NBYTES = 4


def weights_of(checkpoint: Checkpoint, saved: Saved) -> Weights:
    """All files that hold weights; FactUnavailable where none does."""
    files = tuple(_files(checkpoint, saved))
    if not any(f.tensors or f.problems for f in files):
        raise FactUnavailable("there are no model weights")
    return Weights(files)


def _files(checkpoint: Checkpoint, saved: Saved) -> Iterator[WeightFile]:
    ranks = len(saved.model)
    for rank, path in sorted(saved.model.items()):
        if not saved.layers and not _is_pipeline(checkpoint, saved, path):
            file = _read(checkpoint, path, "module", f"mp_rank_{rank:02d}." if ranks > 1 else "")
            others = {name: t for name, t in file.tensors.items() if name not in saved.universal}
            if others or file.problems or not file.tensors:
                yield replace(file, tensors=others)
    for layer, path in sorted(saved.layers.items()):
        yield _read(checkpoint, path, "", f"{layer[0]}." if not layer[1] else f"{layer[0]}.mp_rank_{layer[1]:02d}.")
    for key, path in sorted(saved.experts.items()):
        yield _read(checkpoint, path, "", f"mp_rank_{key[2]:02d}." if ranks > 1 else "")
    if first := next(iter(saved.models), None) if saved.model_parts and not saved.model else None:
        yield _shapes(checkpoint, first)
    for name, parts in sorted(saved.universal.items()):
        if "fp32" in parts:
            yield _of_parameter(checkpoint, parts["fp32"], name)


def _is_pipeline(checkpoint: Checkpoint, saved: Saved, path: str) -> bool:
    """Whether a rank of a pipeline wrote a universal checkpoint's model states, which then hold no weights."""
    found = dict(readable(checkpoint, (path,))) if saved.universal else {}
    return path in found and found[path].get("module", path) is None


def _read(checkpoint: Checkpoint, path: str, key: str, lead: str) -> WeightFile:
    try:
        file = checkpoint.files.torch_file(path)
    except FactUnavailable as absent:
        return WeightFile(path, "torch", {}, key, problems=(ReadProblem("unreadable", absent.reason),))
    tensors = flatten(part(file.value, key) if key else file.value)
    return WeightFile(path, "torch", {f"{lead}{n}": t for n, t in tensors.items()}, key, problems=file.problems)


def _shapes(checkpoint: Checkpoint, path: str) -> WeightFile:
    """Stage 3 leaves an empty tensor for each parameter; its shape stands beside, and its elements are in the partitions."""
    values = dictionary(checkpoint, path)
    present = {n: t for n, t in flatten(values.get("module")).items() if t.numel}
    frozen = dict(_of_shapes(part(values, "frozen_param_shapes")))
    return WeightFile(path, "torch", {**present, **frozen, **dict(parameters(values))}, "module")


def parameters(values: Mapping[object, object]) -> Iterator[tuple[str, TensorInfo]]:
    """The partitioned parameters of one model-parallel rank, as shapes of float32 tensors."""
    for group in parameter_groups(values):
        yield from group


def parameter_groups(values: Mapping[object, object]) -> Iterator[list[tuple[str, TensorInfo]]]:
    """The same by the optimizer's groups."""
    groups = values.get("param_shapes")
    for group in groups if isinstance(groups, list | tuple) else [groups]:
        yield list(_of_shapes(part(group)))


def _of_shapes(shapes: Mapping[object, object]) -> Iterator[tuple[str, TensorInfo]]:
    for name, shape in shapes.items():
        if isinstance(shape, list | tuple) and all(isinstance(n, int) for n in shape):
            tensor = TensorInfo("float32", tuple(shape), 0)
            yield str(name), tensor._replace(nbytes=tensor.numel * _FLOAT32_NBYTES)


def _of_parameter(checkpoint: Checkpoint, path: str, name: str) -> WeightFile:
    """A universal checkpoint keeps each parameter under `param` in a file of its own."""
    read = _read(checkpoint, path, "", "")
    tensor = read.tensors.get("param")
    return WeightFile(path, "torch", {name: tensor} if tensor else {}, "param", problems=read.problems)

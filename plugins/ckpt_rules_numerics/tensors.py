"""Which of the measured tensors a rule looks at, and how it speaks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpt_rules import Block, Checkpoint, FactUnavailable, Measure, Measured

_MODEL_KEYS = ("model.", "module.", "state_dict.", "app.model.")


def of_numbers(found: Iterable[Measured]) -> Iterator[Measured]:
    """All of them; FactUnavailable where there are none."""
    nothing = True
    for measured in found:
        nothing = False
        yield measured
    if nothing:
        raise FactUnavailable("there is no tensor whose values could be read")


def each_once(found: Iterable[Measured]) -> Iterator[Measured]:
    """Each tensor by the first of its names."""
    seen: set[tuple[Block, ...]] = set()
    for measured in found:
        if measured.tensor.blocks not in seen:
            seen.add(measured.tensor.blocks)
            yield measured


def weights(checkpoint: Checkpoint, measures: Measure) -> Iterator[tuple[str, Measured]]:
    """The model's floating-point tensors with their names in the model.

    FactUnavailable where there are no weights, or none whose values could be read.
    """
    known = checkpoint.weights
    places = {
        (file.path, tensor.offset + tensor.first * (tensor.nbytes // tensor.numel), tensor.shape): name
        for file, name, tensor in known.items()
        if tensor.offset is not None and tensor.numel
    }
    distributed = {name for file in known.files if file.format == "dcp" for name in file.tensors}
    found = False
    for measured in checkpoint.measured(measures):
        tensor = measured.tensor
        first = tensor.blocks[0]
        name = places.get((first.path, first.offset, tensor.shape)) or _named(tensor.name, distributed)
        if name is not None:
            found = True
            if tensor.is_float:
                yield name, measured
    if not found:
        raise FactUnavailable("there are no weights whose values could be read")


def _named(stored: str, names: set[str]) -> str | None:
    """The name that a tensor of a distributed checkpoint has in the model."""
    if stored in names:
        return stored
    return next((s for key in _MODEL_KEYS if stored.startswith(key) and (s := stored.removeprefix(key)) in names), None)


def is_matrix(measured: Measured) -> bool:
    """Whether it has at least two dimensions that are longer than 1."""
    return sum(size > 1 for size in measured.tensor.shape) >= 2


def indexed(index: tuple[int, ...]) -> str:
    """`[0, 17]`."""
    return f"[{', '.join(map(str, index))}]"


def listed(names: list[str], most: int = 5) -> str:
    """`a, b and 7 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Which of the measured tensors a rule looks at, and how it speaks of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpt_rules import Block, Checkpoint, FactUnavailable, Measure, Measured, measured_weights


def of_numbers(found: Iterable[Measured]) -> Iterator[Measured]:
    """All of them; FactUnavailable where there are none."""
    nothing = True
    for measured in found:
        nothing = False
        yield measured
    if nothing:
        raise FactUnavailable("there are no tensors whose values can be read")


def each_once(found: Iterable[Measured]) -> Iterator[Measured]:
    """Each tensor by the first of its names."""
    seen: set[tuple[Block, ...]] = set()
    for measured in found:
        if measured.tensor.blocks not in seen:
            seen.add(measured.tensor.blocks)
            yield measured


def weights(checkpoint: Checkpoint, measures: Measure) -> Iterator[tuple[str, Measured]]:
    """The model's floating-point tensors with their names in the model; see `Checkpoint.measured_weights`."""
    return ((name, found) for name, found in measured_weights(checkpoint, measures) if found.tensor.is_float)


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

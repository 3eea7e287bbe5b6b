"""Whether every tensor has all of its elements, and whatever is described a place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpt_rules import DistributedMetadata, Problem, StoredTensor
from ckpt_rules_dcp.covered.metadata import is_of_a_rank
from ckpt_rules_dcp.covered.problems import SHOWN, bounded, of_tensor, problem
from ckpt_rules_dcp.tiling import fault_in


def unfilled_tensors(metadata: DistributedMetadata, placed: Counter[str]) -> Iterator[Problem]:
    """Tensors whose chunks have no place, or do not fill them; `placed` counts the places of each name."""
    in_pieces = is_of_a_rank(metadata.path)
    faults = (
        (name, tensor, fault)
        for name, tensor in metadata.tensors.items()
        if (fault := _unplaced(tensor, placed[name]) or (None if in_pieces else fault_in(tensor)))
    )
    for (name, tensor, fault), more in bounded(faults):
        yield of_tensor(metadata.path, name, tensor, f"{fault}{more}")


def unplaced_objects(metadata: DistributedMetadata, placed: Counter[str]) -> Iterator[Problem]:
    """At most one problem: objects that have no place in any file."""
    absent = sorted(n for n in metadata.objects if not placed[n])
    if absent:
        have = "object has" if len(absent) == 1 else "objects have"
        words = f"{len(absent):,} {have} no place in any file: {', '.join(absent[:SHOWN])}"
        yield problem(words, metadata.path, data={"objects": absent[:100]})


def _unplaced(tensor: StoredTensor, placed: int) -> str | None:
    chunks = len(tensor.chunks)
    return f"has {chunks:,} chunks, but only {placed:,} have a place in a file" if placed < chunks else None

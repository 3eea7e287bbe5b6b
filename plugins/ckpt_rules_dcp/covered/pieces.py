"""Whether the pieces that ranks wrote with metadata of their own make whole tensors together."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, Problem
from ckpt_rules_dcp.covered.metadata import written_by_ranks
from ckpt_rules_dcp.covered.problems import of_tensor
from ckpt_rules_dcp.tiling import fault_in


def missing_pieces(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Tensors that all ranks together do not fill; FactUnavailable, blocked, where further ranks have some of them."""
    for path in written_by_ranks(checkpoint):
        yield from _put_together(checkpoint.files.distributed(path))


def _put_together(metadata: DistributedMetadata) -> Iterator[Problem]:
    """Tensors of which each rank names its own piece alone; FactUnavailable, blocked, where further ranks have some."""
    short = []
    for name, tensor in metadata.tensors.items():
        held = sum(prod(chunk.sizes) for chunk in tensor.chunks)
        if held < prod(tensor.shape):
            short.append((name, held, prod(tensor.shape)))
        elif fault := fault_in(tensor):
            yield of_tensor(metadata.path, name, tensor, fault)
    if short:
        name, held, of = short[0]
        words = (
            f"only {held:,} of {of:,} elements of {name} (and parts of {len(short):,} tensors) are covered. Copy the other ranks' "
            "files here, or set `separate_disks: true` if they stay on their nodes"
        )
        raise FactUnavailable(words, path=metadata.path, blocked=True)

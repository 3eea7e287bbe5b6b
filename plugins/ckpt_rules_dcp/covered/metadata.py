"""Where the metadata of a distributed checkpoint lie."""

from __future__ import annotations

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, rank_of_metadata
from ckpt_rules_dcp.saved import METADATA


def all_metadata(checkpoint: Checkpoint) -> list[DistributedMetadata]:
    """Those of each directory, or of each rank; FactUnavailable where there are none."""
    listing = checkpoint.listing
    found = [p for p in checkpoint.files.metadata_files if is_of_a_rank(p) or ((e := listing.get(p)) and e.size)]
    if not found:
        raise FactUnavailable("there is no metadata of a distributed checkpoint")
    return [checkpoint.files.distributed(path) for path in found]


def written_by_ranks(checkpoint: Checkpoint) -> list[str]:
    """Where a `.metadata` would lie that each rank wrote for itself."""
    return sorted({f"{p[: p.rfind('/') + 1]}{METADATA}" for p in checkpoint.files.metadata_files if is_of_a_rank(p)})


def is_of_a_rank(path: str) -> bool:
    """Whether one rank wrote it for itself."""
    return rank_of_metadata(path.rpartition("/")[2]) is not None

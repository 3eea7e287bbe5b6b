"""Names of the files of torch.distributed.checkpoint.

Source: `FileSystemWriter` in torch/distributed/checkpoint/filesystem.py.
"""

from __future__ import annotations

import re

METADATA = ".metadata"
"""Says what a save holds, and where; rank 0 writes it last."""

_METADATA_OF_RANK = re.compile(r"__(\d{1,6})\.metadata")
SHARD_OF_RANK = re.compile(r"__(\d{1,6})_\d{1,6}\.distcp")


def rank_of_metadata(name: str) -> int | None:
    """R of `__R.metadata`, as each rank writes one where ranks save without talking to each other; None of other names."""
    match = _METADATA_OF_RANK.fullmatch(name)
    return int(match[1]) if match else None


def rank_of_shard(name: str) -> int | None:
    """R of `__R_K.distcp`, the K-th file of rank R; None of other names."""
    match = SHARD_OF_RANK.fullmatch(name)
    return int(match[1]) if match else None

"""Saves of which each node has its own part: what lies on a disk here need not be all that was written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, rank_of_shard


def ranks_of(paths: Collection[str]) -> dict[int, list[str]]:
    """The files of each rank, by the name that rank R gives them: `__R_K.distcp`."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        rank = rank_of_shard(path.rpartition("/")[2])
        if rank is not None:
            found[rank].append(path)
    return found


def named(ranks: Collection[int]) -> str:
    """Ranks in words: `rank 1`, `ranks 0 and 2`, `ranks 8 to 15`."""
    ordered = sorted(ranks)
    if len(ordered) < 2:
        return f"rank {ordered[0]}"
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"ranks {ordered[0]} to {ordered[-1]}"
    head = ", ".join(map(str, ordered[:-1] if len(ordered) < 6 else ordered[:4]))
    return f"ranks {head} and {ordered[-1] if len(ordered) < 6 else f'{len(ordered) - 4:,} more'}"


def why_elsewhere(checkpoint: Checkpoint, metadata: str) -> str | None:
    """Why a `.metadata` that is not there may lie on another disk; None where its absence says that a save never finished.

    Rank 0 writes it, beside its own files: where others' lie alone, those of rank 0 are somewhere else.
    """
    folder = metadata.rpartition("/")[0]
    ranks = ranks_of([e.path for e in checkpoint.listing.files("*.distcp") if e.parent == folder])
    if not ranks or 0 in ranks:
        return None
    return (
        f"there is no {metadata}, and the files are those of {named(ranks)}: if each node has its own disk, it is "
        "on that of rank 0; torch reads it on every rank, so copy it here and verify again"
    )


def absent_ranks(checkpoint: Checkpoint, metadata: DistributedMetadata) -> dict[int, list[str]]:
    """The files that are not there, of ranks of whose files none is."""
    known = ranks_of(metadata.items.paths)
    return {r: paths for r, paths in known.items() if not any(map(checkpoint.listing.get, paths))}


def is_a_node(metadata: DistributedMetadata, absent: Collection[int]) -> bool:
    """Whether the ranks that are left are those of one node: in a row, the first a multiple of their number, as the ranks are.

    Of one absent rank a lost file is the likelier reason.
    """
    known = ranks_of(metadata.items.paths)
    here = sorted(known.keys() - set(absent))
    if len(absent) < 2 or not here:
        return False
    in_a_row = here[-1] - here[0] == len(here) - 1
    return in_a_row and here[0] % len(here) == 0 and (max(known) + 1) % len(here) == 0


def whole_metadata(checkpoint: Checkpoint, path: str) -> DistributedMetadata:
    """A `.metadata`; FactUnavailable, blocked, where it is not there or is not valid."""
    if checkpoint.listing.get(path) is None:
        raise FactUnavailable(why_elsewhere(checkpoint, path) or f"there is no {path}", path=path, blocked=True)
    metadata = checkpoint.files.distributed(path)
    if metadata.problem is not None:
        raise FactUnavailable(f"{path} can't be interpreted", path=path, blocked=True)
    return metadata

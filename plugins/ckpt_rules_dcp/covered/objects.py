"""Whether objects and numbers, which are read whole, are what they should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import Checkpoint, DistributedMetadata, Problem, StoredItem
from ckpt_rules_dcp.covered.problems import problem
from ckpt_rules_dcp.saved import small_values

_ZIP = b"PK\x03\x04"


def unreadable_objects(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[Problem]:
    """Small entries that can't be read, and files that do not begin with their first entry."""
    damaged: dict[str, list[StoredItem]] = defaultdict(list)
    for item in checkpoint.fact(small_values, metadata.path).damaged.values():
        entry = checkpoint.listing.get(item.path)
        if entry is not None and item.offset + item.nbytes <= entry.size:
            damaged[item.path].append(item)
    for path, items in damaged.items():
        words = (
            f"{len(items):,} small entries of {path} can't be read, {items[0].name} first: the file holds other "
            "data there"
        )
        yield problem(words, path, items[0], {"entries": len(items)})
    for item in (file.first for file in metadata.items.files()):
        entry = checkpoint.listing.get(item.path)
        if entry is None or item.path in damaged or entry.size < item.offset + item.nbytes or item.nbytes < len(_ZIP):
            continue
        head = checkpoint.files.sniff(item.path)
        known = not head.head or head.head.startswith((_ZIP, b"\x80")) or metadata.transforms
        if item.offset == 0 and head.error is None and not known:
            yield problem(
                f"{item.path} does not begin with {item.name}: the file holds other data there", item.path, item
            )

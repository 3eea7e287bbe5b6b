"""Whether the files that `.metadata` speaks of are there, and as long as it says."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import islice, pairwise

from ckpt_rules import Checkpoint, DistributedMetadata, EntryKind, Problem, StoredItem
from ckpt_rules_dcp.covered.problems import SHOWN, problem

_ABSENT_HELP = "copy it from the disk of the node where that rank ran, or resume from an earlier save"


def wrong_files(
    checkpoint: Checkpoint, metadata: DistributedMetadata, passed_over: Container[str]
) -> Iterator[Problem]:
    """Files that are not there, and places in the others that lie beyond their end, short of it, or on one another."""
    doubtful: dict[str, tuple[int, list[StoredItem]]] = {}
    for path, _, count, length in sorted(metadata.items.files()):
        entry = checkpoint.listing.get(path)
        if entry is None and path in passed_over:
            continue
        if entry is None:
            names = ", ".join(i.name for i in islice(metadata.items.inside({path}), SHOWN)) + (
                " …" if count > SHOWN else ""
            )
            words = (
                f"{path} is missing; .metadata places {count:,} of its {len(metadata.items):,} entries there: {names}"
            )
            yield problem(words, path, data={"entries": count}, help_=_ABSENT_HELP)
        elif entry.kind is EntryKind.FILE and entry.size != length:
            doubtful[path] = entry.size, []
    for item in metadata.items.inside(doubtful) if doubtful else ():
        doubtful[item.path][1].append(item)
    for path, (size, items) in doubtful.items():
        yield from _ranges(path, size, sorted(items, key=lambda i: i.offset))


def _ranges(path: str, size: int, items: list[StoredItem]) -> Iterator[Problem]:
    last = max(items, key=lambda i: i.offset + i.nbytes)
    end = last.offset + last.nbytes
    beyond = [i for i in items if i.offset + i.nbytes > size]
    if beyond:
        words = (
            f"{path} is {size:,} bytes long, but {len(beyond):,} of its {len(items):,} entries end past that, the "
            f"last at {end:,}"
        )
        yield problem(
            f"{words}: {beyond[0].name} is cut off", path, beyond[0], {"size": size, "end": end, "entries": len(beyond)}
        )
    elif end < size:
        words = (
            f"{path} is {size:,} bytes long, but its entries end at {end:,}: the metadata and the file are from "
            "different saves"
        )
        yield problem(words, path, data={"size": size, "end": end})
    for one, other in pairwise(items):
        if other.offset < one.offset + one.nbytes and other.nbytes and one.nbytes:
            words = f"{one.name} and {other.name} overlap in {path} at byte {other.offset:,}"
            yield problem(words, path, other)
            return

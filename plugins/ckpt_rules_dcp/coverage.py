"""ranks/chunk-coverage and ranks/unreferenced-file: what `.metadata` says against the files that it speaks of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise

from ckpt_rules import (
    Checkpoint,
    DistributedMetadata,
    EntryKind,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    StoredItem,
    StoredTensor,
)
from ckpt_rules_dcp.saved import METADATA, small_values
from ckpt_rules_dcp.tiling import fault_in

_SHOWN = 3


class ChunkCoverage(Rule):
    """The files of a distributed checkpoint do not hold what its metadata says.

    ## What it checks
    Every file that `.metadata` refers to is there, and as long as the last range in it; ranges of one file don't overlap;
    the chunks of each tensor lie within it, don't overlap and fill it; every tensor and object has a place. Objects and
    numbers, which are read whole, are what they should be. Wherever in the checkpoint a `.metadata` lies.

    ## Why it matters
    A rank was killed before it had written all, or a save over an older one was interrupted: the old metadata then speaks of
    new files. A load fails on one rank and hangs the others; or, where lengths agree, gives weights of two moments.

    ## How to repair
    Resume from an earlier save. Save each time into a directory of its own.
    """

    id = "ranks/chunk-coverage"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file, one for each tensor."""
        for metadata in _all(checkpoint):
            if metadata.problem is not None:
                yield _problem(f"{metadata.path} can't be read: {metadata.problem.message}", metadata.path)
                continue
            yield from _files(checkpoint, metadata)
            yield from _tensors(metadata)
            yield from _objects(checkpoint, metadata)
            if transformed := checkpoint.fact(small_values, metadata.path).transformed:
                raise FactUnavailable(transformed, path=metadata.path, blocked=True)


def _all(checkpoint: Checkpoint) -> list[DistributedMetadata]:
    found = [e for e in checkpoint.listing.files(METADATA) if e.size]
    if not found:
        raise FactUnavailable("there is no metadata of a distributed checkpoint")
    return [checkpoint.distributed(e.path) for e in found]


def _files(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[Problem]:
    doubtful: dict[str, tuple[int, list[StoredItem]]] = {}
    for path, _, count, length in sorted(metadata.items.files()):
        entry = checkpoint.listing.get(path)
        if entry is None:
            names = ", ".join(i.name for i in islice(metadata.items.inside({path}), _SHOWN)) + (
                " …" if count > _SHOWN else ""
            )
            words = f"{path} is not there, which holds {count:,} of {len(metadata.items):,} entries: {names}"
            yield _problem(words, path, data={"entries": count})
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
        words = f"{path} is {size:,} bytes long, and {len(beyond):,} of its {len(items):,} entries end beyond, the last at {end:,}"
        yield _problem(
            f"{words}: {beyond[0].name} is cut", path, beyond[0], {"size": size, "end": end, "entries": len(beyond)}
        )
    elif end < size:
        words = f"{path} is {size:,} bytes long, and its entries end at {end:,}: the metadata is of another save than the file"
        yield _problem(words, path, data={"size": size, "end": end})
    for one, other in pairwise(items):
        if other.offset < one.offset + one.nbytes and other.nbytes and one.nbytes:
            words = f"{one.name} and {other.name} overlap in {path} at byte {other.offset:,}"
            yield _problem(words, path, other)
            return


def _tensors(metadata: DistributedMetadata) -> Iterator[Problem]:
    placed = metadata.items.counts()
    for name, tensor in metadata.tensors.items():
        if fault := _unplaced(tensor, placed[name]) or fault_in(tensor):
            yield Problem(
                message=f"{name} {list(tensor.shape)} {fault}",
                place=Place(path=metadata.path, tensor=name),
                help=_HELP,
                data={"shape": list(tensor.shape), "chunks": len(tensor.chunks)},
            )
    absent = sorted(n for n in metadata.objects if not placed[n])
    if absent:
        words = f"{len(absent):,} objects have no place in any file: {', '.join(absent[:_SHOWN])}"
        yield _problem(words, metadata.path, data={"objects": absent[:100]})


def _unplaced(tensor: StoredTensor, placed: int) -> str | None:
    chunks = len(tensor.chunks)
    return f"has {chunks:,} chunks, of which {placed:,} have a place in a file" if placed < chunks else None


def _objects(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[Problem]:
    damaged: dict[str, list[StoredItem]] = defaultdict(list)
    for item in checkpoint.fact(small_values, metadata.path).damaged.values():
        entry = checkpoint.listing.get(item.path)
        if entry is not None and item.offset + item.nbytes <= entry.size:
            damaged[item.path].append(item)
    for path, items in damaged.items():
        words = f"{len(items):,} small entries of {path} can't be read, {items[0].name} first: other bytes lie there"
        yield _problem(words, path, items[0], {"entries": len(items)})
    for item in (file.first for file in metadata.items.files()):
        entry = checkpoint.listing.get(item.path)
        if entry is None or item.path in damaged or entry.size < item.offset + item.nbytes or item.nbytes < len(_ZIP):
            continue
        head = checkpoint.head(item.path)
        known = not head.head or head.head.startswith((_ZIP, b"\x80")) or metadata.transforms
        if item.offset == 0 and head.error is None and not known:
            yield _problem(f"{item.path} does not begin with {item.name}: other bytes lie there", item.path, item)


_ZIP = b"PK\x03\x04"


_HELP = "resume from an earlier save, and save each time into a directory of its own"


def _problem(
    message: str, path: str, item: StoredItem | None = None, data: Mapping[str, object] | None = None
) -> Problem:
    place = Place(path=path, tensor=item.name, offset=item.offset) if item else Place(path=path)
    return Problem(message=message, place=place, help=_HELP, data=dict(data or {}))


class UnreferencedFile(Rule):
    """A `.distcp` file of which the metadata says nothing.

    ## What it checks
    Every `.distcp` file beside a `.metadata` is referred to in it.

    ## Why it matters
    It is not loaded: a later save by fewer ranks went into the same directory. Nothing is lost, but the directory holds two
    saves, and looks like one of more ranks.

    ## How to repair
    Delete the file. Save each time into a directory of its own.
    """

    id = "ranks/unreferenced-file"
    severity = Severity.WARNING
    tags = frozenset({"files"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        for metadata in _all(checkpoint):
            if metadata.problem is not None:
                continue
            folder = metadata.path.rpartition("/")[0]
            known = set(metadata.items.paths)
            for entry in checkpoint.listing.files("*.distcp"):
                if entry.parent == folder and entry.path not in known and entry.size:
                    yield Problem(
                        message=f"{metadata.path} says nothing of {entry.path} ({entry.size:,} bytes), so it is not loaded",
                        place=Place(path=entry.path),
                        help="delete it; it is of another save, by more ranks",
                        data={"nbytes": entry.size},
                    )

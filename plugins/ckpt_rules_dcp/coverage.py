"""ranks/chunk-coverage and ranks/unreferenced-file: what `.metadata` says against the files that it speaks of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import islice, pairwise
from math import prod
from typing import TypeVar

from pydantic import Field

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
    rank_of_metadata,
)
from ckpt_rules_dcp.entries import lost, misplaced, undescribed
from ckpt_rules_dcp.nodes import absent_ranks, is_a_node, named, ranks_of
from ckpt_rules_dcp.saved import METADATA, small_values
from ckpt_rules_dcp.tiling import fault_in

_SHOWN, _MOST = 3, 20
_T = TypeVar("_T")


class ChunkCoverage(Rule):
    """The files of a distributed checkpoint do not hold what its metadata says.

    ## What it checks
    Every file that `.metadata` refers to is there, and as long as the last range in it; ranges of one file don't overlap;
    the chunks of each tensor lie within it, don't overlap and fill it; every tensor and object has a place, and whatever has a
    place is described; what the save was planned with is there. Objects and numbers, which are read whole, are what they
    should be; each place is long enough for its chunk, and small ones hold a tensor of its shape. Wherever in the checkpoint a `.metadata` lies; where each rank
    wrote one of its own, `__R.metadata`, for each, and the pieces of a tensor together.

    Where nodes have disks of their own, a directory holds the files of some ranks. Those of a node's equal share of all, with
    two or more other ranks wholly absent, or of ranks that each wrote their own metadata, are no finding: the verdict is
    unknown, for they may be lost as well. A single absent rank is taken to be lost.

    ## Why it matters
    A rank was killed before it had written all, or a save over an older one was interrupted: the old metadata then speaks of
    new files. A load fails on one rank and hangs the others; or, where lengths agree, gives weights of two moments.

    ## How to repair
    Resume from an earlier save. Save each time into a directory of its own.
    """

    id = "ranks/chunk-coverage"
    tags = frozenset({"files", "load", "resume"})

    separate_disks: bool = Field(
        default=False,
        description="Each node writes to a disk of its own, and each rank its own metadata: pieces of others are not missed.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file, one for each tensor."""
        unknown: list[FactUnavailable] = []
        for metadata in _all(checkpoint):
            if metadata.problem is not None:
                yield _problem(f"{metadata.path} can't be read: {metadata.problem.message}", metadata.path)
                continue
            absent = {} if _is_of_a_rank(metadata.path) else absent_ranks(checkpoint, metadata)
            passed_over = {p for paths in absent.values() for p in paths} if is_a_node(metadata, absent) else set()
            yield from _files(checkpoint, metadata, passed_over)
            yield from _tensors(metadata)
            yield from _entries(checkpoint, metadata)
            yield from _objects(checkpoint, metadata)
            if passed_over:
                unknown.append(_elsewhere(metadata, absent, min(passed_over)))
            if transformed := checkpoint.fact(small_values, metadata.path).transformed:
                unknown.append(FactUnavailable(transformed, path=metadata.path, blocked=True))
        if unknown:
            raise unknown[0]
        for path in [] if self.separate_disks else _by_ranks(checkpoint):
            yield from _put_together(checkpoint.files.distributed(path))


def _all(checkpoint: Checkpoint) -> list[DistributedMetadata]:
    listing = checkpoint.listing
    found = [p for p in checkpoint.files.metadata_files if _is_of_a_rank(p) or ((e := listing.get(p)) and e.size)]
    if not found:
        raise FactUnavailable("there is no metadata of a distributed checkpoint")
    return [checkpoint.files.distributed(path) for path in found]


def _by_ranks(checkpoint: Checkpoint) -> list[str]:
    """Where a `.metadata` would lie that each rank wrote for itself."""
    return sorted({f"{p[: p.rfind('/') + 1]}{METADATA}" for p in checkpoint.files.metadata_files if _is_of_a_rank(p)})


def _is_of_a_rank(path: str) -> bool:
    return rank_of_metadata(path.rpartition("/")[2]) is not None


def _elsewhere(metadata: DistributedMetadata, absent: Mapping[int, object], path: str) -> FactUnavailable:
    here = ranks_of(metadata.items.paths).keys() - absent.keys()
    words = (
        f"{metadata.path} names files of {named(absent)}, none of which is here, and those of {named(here)} are all here: where "
        "each node has a disk of its own, put the files of all together, for what ranks share lies with any of them; where all "
        "share one, they are lost"
    )
    return FactUnavailable(words, path=path, blocked=True)


def _files(checkpoint: Checkpoint, metadata: DistributedMetadata, passed_over: Container[str]) -> Iterator[Problem]:
    doubtful: dict[str, tuple[int, list[StoredItem]]] = {}
    for path, _, count, length in sorted(metadata.items.files()):
        entry = checkpoint.listing.get(path)
        if entry is None and path in passed_over:
            continue
        if entry is None:
            names = ", ".join(i.name for i in islice(metadata.items.inside({path}), _SHOWN)) + (
                " …" if count > _SHOWN else ""
            )
            words = f"{path} is not there, which holds {count:,} of {len(metadata.items):,} entries: {names}"
            yield _problem(words, path, data={"entries": count}, help_=_ABSENT_HELP)
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
    in_pieces = _is_of_a_rank(metadata.path)
    faults = (
        (name, tensor, fault)
        for name, tensor in metadata.tensors.items()
        if (fault := _unplaced(tensor, placed[name]) or (None if in_pieces else fault_in(tensor)))
    )
    for (name, tensor, fault), more in _bounded(faults):
        yield _of_tensor(metadata.path, name, tensor, f"{fault}{more}")
    absent = sorted(n for n in metadata.objects if not placed[n])
    if absent:
        have = "object has" if len(absent) == 1 else "objects have"
        words = f"{len(absent):,} {have} no place in any file: {', '.join(absent[:_SHOWN])}"
        yield _problem(words, metadata.path, data={"objects": absent[:100]})


def _bounded(found: Iterable[_T]) -> Iterator[tuple[_T, str]]:
    """The first few, the last of them with words for those that are left out."""
    rest = iter(found)
    shown = list(islice(rest, _MOST))
    more = sum(1 for _ in rest)
    for index, one in enumerate(shown, 1):
        yield one, f" ... and {more:,} more likewise" if more and index == _MOST else ""


def _entries(checkpoint: Checkpoint, metadata: DistributedMetadata) -> Iterator[Problem]:
    for name, more in _bounded(undescribed(metadata)):
        words = f"{metadata.path} has a place for {name}, and no description of it that a load can use: it stops{more}"
        yield _problem(words, metadata.path, tensor=name)
    if gone := lost(metadata):
        words = (
            f"{metadata.path} lacks {len(gone):,} of the {len(metadata.planned):,} entries that the save was planned with: "
            f"{', '.join(gone[:_SHOWN])}{' …' if len(gone) > _SHOWN else ''}; a load that asks for them stops with 'Missing key'"
        )
        yield _problem(words, metadata.path, data={"names": gone[:100]}, tensor=gone[0])
    for item, fault in islice(misplaced(checkpoint, metadata), _MOST):
        yield _problem(f"{item.name} {fault}: other bytes lie there", item.path, item)


def _of_tensor(path: str, name: str, tensor: StoredTensor, fault: str) -> Problem:
    return Problem(
        message=f"{name} {list(tensor.shape)} {fault}",
        place=Place(path=path, tensor=name),
        help=_HELP,
        data={"shape": list(tensor.shape), "chunks": len(tensor.chunks)},
    )


def _put_together(metadata: DistributedMetadata) -> Iterator[Problem]:
    """Tensors of which each rank names its own piece alone; FactUnavailable, blocked, where further ranks have some."""
    short = []
    for name, tensor in metadata.tensors.items():
        held = sum(prod(chunk.sizes) for chunk in tensor.chunks)
        if held < prod(tensor.shape):
            short.append((name, held, prod(tensor.shape)))
        elif fault := fault_in(tensor):
            yield _of_tensor(metadata.path, name, tensor, fault)
    if short:
        name, held, of = short[0]
        words = (
            f"the ranks whose metadata is here hold {held:,} of the {of:,} elements of {name}, and parts of {len(short):,} tensors: "
            "other ranks wrote the rest, onto the disks of their nodes (`separate_disks: true` says so), or it is lost"
        )
        raise FactUnavailable(words, path=metadata.path, blocked=True)


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
        head = checkpoint.files.sniff(item.path)
        known = not head.head or head.head.startswith((_ZIP, b"\x80")) or metadata.transforms
        if item.offset == 0 and head.error is None and not known:
            yield _problem(f"{item.path} does not begin with {item.name}: other bytes lie there", item.path, item)


_ZIP = b"PK\x03\x04"


_HELP = "resume from an earlier save, and save each time into a directory of its own"
_ABSENT_HELP = "copy it from the disk of the node where that rank ran, or resume from an earlier save"


def _problem(
    message: str,
    path: str,
    item: StoredItem | None = None,
    data: Mapping[str, object] | None = None,
    help_: str = _HELP,
    tensor: str | None = None,
) -> Problem:
    place = Place(path=path, tensor=item.name, offset=item.offset) if item else Place(path=path, tensor=tensor)
    return Problem(message=message, place=place, help=help_, data=dict(data or {}))


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
        known: dict[str, tuple[str, set[str]]] = {}
        for metadata in _all(checkpoint):
            _, paths = known.setdefault(metadata.path.rpartition("/")[0], (metadata.path, set()))
            paths.update(metadata.items.paths if metadata.problem is None else (e.path for e in checkpoint.listing))
        for entry in checkpoint.listing.files("*.distcp"):
            said, paths = known.get(entry.parent, ("", set()))
            if said and entry.path not in paths and entry.size:
                yield Problem(
                    message=f"{said} says nothing of {entry.path} ({entry.size:,} bytes), so it is not loaded",
                    place=Place(path=entry.path),
                    help="delete it; it is of another save, by more ranks",
                    data={"nbytes": entry.size},
                )

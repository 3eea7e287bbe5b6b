"""ranks/chunk-coverage and ranks/unreferenced-file: what `.metadata` says against the files that it speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_dcp.covered.entries import wrong_entries
from ckpt_rules_dcp.covered.files import wrong_files
from ckpt_rules_dcp.covered.metadata import all_metadata, is_of_a_rank
from ckpt_rules_dcp.covered.objects import unreadable_objects
from ckpt_rules_dcp.covered.pieces import missing_pieces
from ckpt_rules_dcp.covered.problems import problem
from ckpt_rules_dcp.covered.tensors import unfilled_tensors, unplaced_objects
from ckpt_rules_dcp.nodes import absent_ranks, is_a_node, named, ranks_of
from ckpt_rules_dcp.saved import small_values


class ChunkCoverage(Rule):
    """The files of a distributed checkpoint do not match its metadata.

    ## What it checks
    Every file that `.metadata` refers to exists and is as long as its last range; ranges of one file don't overlap; the
    chunks of each tensor lie within it, don't overlap and fill it; every tensor and object has a place, and everything
    with a place is described; every entry of the save plan exists. Objects and numbers, which are read whole, are what
    they should be; each place is long enough for its chunk, and small ones hold a tensor of its shape. Wherever in the
    checkpoint a `.metadata` lies; where each rank wrote one of its own, `__R.metadata`, for each, and the pieces of a
    tensor together.

    Where nodes have disks of their own, a directory holds the files of some ranks. Those of a node's equal share of all, with
    two or more other ranks wholly absent, or of ranks that each wrote their own metadata, are not a finding: the verdict is
    unknown, for they may be lost as well. A single absent rank is taken to be lost.

    ## Why it matters
    A rank was killed before it wrote everything, or a save over an older one was interrupted: the old metadata then
    describes new files. A load fails on one rank and hangs the others; or, if the lengths agree, mixes weights of two
    steps.

    ## How to repair
    Resume from an earlier save. Write each save to its own directory.
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
        for metadata in all_metadata(checkpoint):
            if metadata.problem is not None:
                yield problem(f"{metadata.path} can't be read: {metadata.problem.message}", metadata.path)
                continue
            absent = {} if is_of_a_rank(metadata.path) else absent_ranks(checkpoint, metadata)
            passed_over = {p for paths in absent.values() for p in paths} if is_a_node(metadata, absent) else set()
            yield from wrong_files(checkpoint, metadata, passed_over)
            placed = metadata.items.counts()
            yield from unfilled_tensors(metadata, placed)
            yield from unplaced_objects(metadata, placed)
            yield from wrong_entries(checkpoint, metadata)
            yield from unreadable_objects(checkpoint, metadata)
            if passed_over:
                unknown.append(_elsewhere(metadata, absent, min(passed_over)))
            if transformed := checkpoint.fact(small_values, metadata.path).transformed:
                unknown.append(FactUnavailable(transformed, path=metadata.path, blocked=True))
        if unknown:
            raise unknown[0]
        if not self.separate_disks:
            yield from missing_pieces(checkpoint)


def _elsewhere(metadata: DistributedMetadata, absent: Mapping[int, object], path: str) -> FactUnavailable:
    here = ranks_of(metadata.items.paths).keys() - absent.keys()
    words = (
        f"all files of {named(absent)} are missing, while those of {named(here)} are here. If each node saves to "
        "its own disk, "
        "copy every node's files into one directory; on a shared disk the files are lost"
    )
    return FactUnavailable(words, path=path, blocked=True)


class UnreferencedFile(Rule):
    """The metadata does not mention a `.distcp` file.

    ## What it checks
    Every `.distcp` file beside a `.metadata` is referred to in it.

    ## Why it matters
    It is not loaded: a later save by fewer ranks went into the same directory. Nothing is lost, but the directory holds
    two saves, and looks like one by more ranks.

    ## How to repair
    Delete the file. Write each save to its own directory.
    """

    id = "ranks/unreferenced-file"
    severity = Severity.WARNING
    tags = frozenset({"files"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        known: dict[str, tuple[str, set[str]]] = {}
        for metadata in all_metadata(checkpoint):
            _, paths = known.setdefault(metadata.path.rpartition("/")[0], (metadata.path, set()))
            paths.update(metadata.items.paths if metadata.problem is None else (e.path for e in checkpoint.listing))
        for entry in checkpoint.listing.files("*.distcp"):
            said, paths = known.get(entry.parent, ("", set()))
            if said and entry.path not in paths and entry.size:
                yield Problem(
                    message=f"{said} does not mention {entry.path} ({entry.size:,} bytes), so it is not loaded",
                    place=Place(path=entry.path),
                    help="delete it; it is left over from another save, by more ranks",
                    data={"nbytes": entry.size},
                )

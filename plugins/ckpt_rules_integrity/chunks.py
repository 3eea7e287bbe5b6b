"""integrity/broken-chunk: the small archives that the files of a distributed checkpoint are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Reads, Rule, StoredItem
from ckpt_rules_dcp.public import why_unread

_MOST = 20


class BrokenChunk(Rule):
    """A chunk of a distributed checkpoint is not what torch.save wrote.

    ## What it checks
    Each tensor's chunk in the files that `.metadata` lists: that it is a whole archive by torch.save, whose headers and
    directory agree, and whose pickle can be read. Objects may be bytes of any kind.

    ## Why it matters
    Each chunk is passed to torch.load separately. A loader fails at the first broken one, which may be hours after the
    job has started.

    ## How to repair
    Copy the file again from the disk of the rank that wrote it, or use another save.
    """

    id = "integrity/broken-chunk"
    tags = frozenset({"integrity", "ranks"})
    reads = Reads.BYTES

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each of the first 20 chunks of a file."""
        found = False
        for each in checkpoint.files.metadata_files:
            metadata = checkpoint.files.distributed(each)
            by_file: dict[str, list[StoredItem]] = defaultdict(list)
            for item in metadata.items:
                if item.name in metadata.tensors and checkpoint.listing.has_file(item.path):
                    by_file[item.path].append(item)
            for path, items in by_file.items():
                found = True
                if transformed := why_unread(metadata, path):
                    raise FactUnavailable(transformed, path=path, blocked=True)
                parts = checkpoint.files.torch_parts(path, tuple((i.offset, i.nbytes) for i in items))
                broken = [(i, p.problems[0].message) for i, p in zip(items, parts, strict=False) if p.problems]
                yield from (_problem(item, why, len(broken), len(items)) for item, why in broken[:_MOST])
        if not found:
            raise FactUnavailable("there are no files of a distributed checkpoint")


def _problem(item: StoredItem, why: str, broken: int, chunks: int) -> Problem:
    return Problem(
        message=f"the {item.nbytes:,} bytes of this chunk are not what torch.save wrote: {why}; {broken:,} of "
        f"{chunks:,} chunks of the file have this fault",
        place=Place(path=item.path, tensor=item.name, offset=item.offset),
        help="copy the file again from the disk of the rank that wrote it, or use another save",
        data={"nbytes": item.nbytes, "broken": broken, "of": chunks},
    )

"""integrity/crc: the checksums that zip archives carry, and that torch.load does not look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Located,
    Place,
    Problem,
    Reads,
    Rule,
    Wanted,
    ZipMember,
    located_tensors,
    read_all,
)

_PICKLE = "data.pkl"
_SHOWN = 3
_MOST = 20


class Crc(Rule):
    """The contents of a zip archive do not match its checksums.

    ## What it checks
    The CRC-32 of the content of every entry, against the one in the directory of the archive: of files by torch.save,
    of each archive in the files of a distributed checkpoint, and of any other zip archive. A checksum of 0 means that
    there is none, and compressed entries are skipped. The `data.pkl` of a torch.save file, which is read in any case,
    is covered by `zip/ambiguous`.

    ## Why it matters
    A bit that flipped on a disk, in memory or on the wire changes weights silently: torch.load does not compare the
    checksum. Safetensors files have none; for those, seal the checkpoint when it is saved.

    ## How to repair
    Copy the file again from where it was saved. If that copy has the same fault, use another save.
    """

    id = "integrity/crc"
    tags = frozenset({"integrity"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The checksum of every entry."""
        return Wanted(checksums=True)

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each entry, 20 at the most in one file."""
        computed = read_all(checkpoint, self.wanted(checkpoint)).checksums
        if not computed:
            raise FactUnavailable("no file has checksums; only zip archives do")
        faults: dict[str, list[tuple[ZipMember, int]]] = defaultdict(list)
        checked_before = {entry.path for entry in checkpoint.files.of_format("torch")}
        for member, crc in computed.items():
            told = member.path in checked_before and member.name.rpartition("/")[2] == _PICKLE
            if crc != member.crc and not told:
                faults[member.path].append((member, crc))
        tensors = _tensors_by_file(checkpoint) if faults else {}
        for path, found in faults.items():
            for member, crc in sorted(found, key=lambda f: f[0].offset)[:_MOST]:
                within = [t.name for t in tensors.get(path, ()) if _overlaps(t, member)]
                yield _problem(member, crc, within, len(found))


def _tensors_by_file(checkpoint: Checkpoint) -> dict[str, list[Located]]:
    found: dict[str, list[Located]] = defaultdict(list)
    for tensor in located_tensors(checkpoint):
        for path in {block.path for block in tensor.blocks}:
            found[path].append(tensor)
    return found


def _overlaps(tensor: Located, member: ZipMember) -> bool:
    end = member.offset + member.nbytes
    return any(b.path == member.path and b.offset < end and b.offset + b.nbytes > member.offset for b in tensor.blocks)


def _problem(member: ZipMember, crc: int, tensors: list[str], faults: int) -> Problem:
    shown = ", ".join(tensors[:_SHOWN])
    more = f" and {len(tensors) - _SHOWN:,} more" if len(tensors) > _SHOWN else ""
    whose = f", which holds {shown}{more}," if tensors else ""
    others = f"; {faults:,} entries of this file have this fault" if faults > 1 else ""
    return Problem(
        message=f"the {member.nbytes:,} bytes of {member.name}{whose} have the CRC-32 {crc:08x}, but were written with "
        f"{member.crc:08x}{others}",
        place=Place(path=member.path, tensor=tensors[0] if tensors else None, key=member.name, offset=member.offset),
        help="copy the file again from where it was saved, or use another save; torch.load does not detect this",
        data={"entry": member.name, "crc": crc, "expected": member.crc, "tensors": tensors[:100], "entries": faults},
    )

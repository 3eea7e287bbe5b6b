"""zip/ambiguous, zip/traversal and zip/compressed: archives that torch reads in one way and others in another."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity
from ckpt_rules_safety.files import pickled_files

_SHOWN = 20
_AMBIGUOUS = "ambiguous"
_NO_CRC = "readers that check it refuse the file, torch.load does not"


class AmbiguousZip(Rule):
    """A torch file is a zip archive that different readers read differently.

    ## What it checks
    Entries with the same name (torch ignores case); entry headers that contradict the directory in name, method,
    encryption, checksum or size; bytes before, between or after the entries that belong to none; a pickle that does not
    match its stored checksum; and, as a warning, storages that belong to no tensor. Other files of storages are not
    read, so their checksums are not checked here.

    ## Why it matters
    torch uses the directory at the end of the file and ignores the rest; Python's `zipfile`, scanners and unpackers do
    not. What one of them checked is then not what another loads. torch.save never writes such a file.

    ## How to repair
    Do not load such a file from somebody else. If it is your own, it was damaged or edited: restore it.
    """

    id = "zip/ambiguous"
    tags = frozenset({"safety", "load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each contradiction, 20 at the most in one file."""
        yield from _problems(checkpoint, {_AMBIGUOUS: None, "crc": None, "storage-unused": Severity.WARNING})


class ZipTraversal(Rule):
    """An entry of an archive would be unpacked outside of its directory.

    ## What it checks
    Names of entries that are absolute, begin with a drive, or climb with `..`.

    ## Why it matters
    torch.load does not unpack to disk, but people and tools do, and then overwrite files that have nothing to do with the
    checkpoint.

    ## How to repair
    Do not unpack it. Take the checkpoint from a source that you trust.
    """

    id = "zip/traversal"
    tags = frozenset({"safety"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each such name, 20 at the most in one file."""
        yield from _problems(checkpoint, {"traversal": None})


class CompressedZip(Rule):
    """The entries of a torch file are compressed.

    ## What it checks
    The compression method of every entry. TorchScript archives, which compress their source code, are left out.

    ## Why it matters
    torch.save stores entries uncompressed, so another program packed this archive. torch.load accepts it but can't map
    it into memory, and a few bytes may unpack to any size.

    ## How to repair
    Load it in a safe place and save it again with torch.save.
    """

    id = "zip/compressed"
    severity = Severity.WARNING
    tags = frozenset({"safety"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file."""
        yield from _problems(checkpoint, {"compressed": None})


def _problems(checkpoint: Checkpoint, codes: dict[str, Severity | None]) -> Iterator[Problem]:
    for file in pickled_files(checkpoint):
        for fault in [p for p in file.problems if p.code in codes and (p.code == _AMBIGUOUS or not p.fatal)][:_SHOWN]:
            also = f": {_NO_CRC}" if fault.code == "crc" else ""
            yield Problem(
                message=f"{fault.message}{also}",
                place=Place(path=file.path, key=fault.where, offset=fault.offset),
                help="restore the file if it is yours; do not load it if it is not",
                severity=codes[fault.code],
                data={"code": fault.code},
            )

"""Sealing: the digest of every file is written down, so that a later run can tell what has changed since."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ckpt_rules.deep.facts import read_all
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import EntryKind, RootKind
from ckpt_rules.facts.seal import SEAL_NAME, SIGNATURE_NAME, Seal, SealedFile, SealedProgress, is_bookkeeping
from ckpt_rules.facts.values import Digest, Wanted
from ckpt_rules.storage import reason
from ckpt_rules.version import __version__
from ckpt_rules.writing import replace_file, sync_directory

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.files import Entry

ALGORITHMS = ("blake3", "sha256")


def seal_checkpoint(checkpoint: Checkpoint, algorithm: str = "blake3", *, force: bool = False) -> Seal:
    """Read every file, and write the seal when all are read.

    algorithm: `blake3` or `sha256`
    force:     whether a seal that is there is replaced

    Raises `UsageError`, and writes nothing, where the path is not a directory, a file can't be read, one changed meanwhile, or
    there is a seal already.
    """
    if algorithm not in ALGORITHMS:
        raise UsageError(f"there is no algorithm {algorithm!r} for a seal; there are {' and '.join(ALGORITHMS)}")
    files = _files(checkpoint, force=force)
    digests = read_all(checkpoint, Wanted(digests=frozenset(Digest(e.path, algorithm) for e in files)))
    for path, why in digests.unread.items():
        raise UsageError(f"nothing was sealed: {os.path.join(checkpoint.path, path)} can't be read: {why}")
    for entry in files:
        now = checkpoint.files.stat_now(entry.path)
        if now is None or (now.size, now.mtime_ns) != (entry.size, entry.mtime_ns):
            raise UsageError(
                f"nothing was sealed: {entry.path} changed while it was read; seal it when the save is done"
            )
    seal = Seal(
        tool=f"ckpt-rules {__version__}",
        created=datetime.now(UTC).replace(microsecond=0),
        layout=checkpoint.layout.name,
        progress=_progress(checkpoint),
        algorithm=algorithm,
        files={e.path: SealedFile(size=e.size, digest=digests.digests[Digest(e.path, algorithm)]) for e in files},
    )
    _write(checkpoint.path, seal)
    return seal


def _files(checkpoint: Checkpoint, *, force: bool) -> list[Entry]:
    """What is sealed: every regular file, links followed; not the signature, which is made of the seal and changes with it."""
    path = checkpoint.path
    if checkpoint.files.root.kind is not RootKind.DIRECTORY or checkpoint.files.is_in_files:
        missing = checkpoint.files.root.kind is RootKind.MISSING
        what = "there is nothing" if missing else "it is not a directory; a seal lies in the directory that it is about"
        why = checkpoint.files.root.error or what
        raise UsageError(f"{path} can't be sealed: {why}")
    try:
        listing = checkpoint.listing
    except FactUnavailable as absent:
        raise UsageError(f"{path} can't be sealed: {absent.reason}") from None
    if listing.get(SEAL_NAME) is not None and not force:
        raise UsageError(f"{path} has a seal already, {SEAL_NAME}; --force replaces it, 'ckpt-rules verify' checks it")
    if listing.truncated:
        raise UsageError(f"{path} can't be sealed: not all of it could be listed: {listing.truncated}")
    entries = [e for e in listing if e.path not in (SEAL_NAME, SIGNATURE_NAME) and not is_bookkeeping(e.path)]
    for entry in entries:
        if entry.kind not in (EntryKind.FILE, EntryKind.DIRECTORY):
            why = f": {entry.error}" if entry.error else ""
            raise UsageError(
                f"{path} can't be sealed: {entry.path} is not a file that can be read ({entry.kind.value}){why}"
            )
        if entry.path != entry.path.encode("utf-8", "replace").decode():
            raise UsageError(f"{path} can't be sealed: the name of {entry.path!r} is not UTF-8; rename it")
    files = [e for e in entries if e.kind is EntryKind.FILE]
    if not files:
        raise UsageError(f"{path} can't be sealed: there is no file in it")
    return files


def _progress(checkpoint: Checkpoint) -> SealedProgress | None:
    try:
        found = checkpoint.progress
    except FactUnavailable:
        return None
    try:
        updates = checkpoint.optimizer.updates
    except FactUnavailable:
        updates = None
    return SealedProgress(epoch=found.epoch, step=found.step, global_step=found.global_step, updates=updates)


def _write(folder: str, seal: Seal) -> None:
    path = os.path.join(folder, SEAL_NAME)
    try:
        replace_file(path, (seal.model_dump_json(indent=1, exclude_none=True) + "\n").encode())
        sync_directory(folder)
    except OSError as error:
        raise UsageError(f"{path} can't be written: {reason(error)}") from None

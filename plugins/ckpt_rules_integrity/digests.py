"""integrity/digest and integrity/unsigned: files against what was written down of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from ckpt_rules import (
    SEAL_NAME,
    SIGNATURE_NAME,
    Checkpoint,
    Digest,
    EntryKind,
    FactUnavailable,
    Place,
    Problem,
    Reads,
    Rule,
    Severity,
    Wanted,
    is_bookkeeping,
    read_all,
)
from ckpt_rules_integrity.promises import Promise, promises

_MOST = 100
_SHOWN = 5
_AFTER_THE_SEAL = (SEAL_NAME, SIGNATURE_NAME, f"{SEAL_NAME}.sig", f"{SEAL_NAME}.asc")
"""What is written when all else is sealed: the seal, and what signs it."""
_AGAIN = (
    "copy the file again from where it was sealed or downloaded; seal the checkpoint again if the change was intended"
)


class DigestDiffers(Rule):
    """A file has changed since its digest was recorded.

    ## What it checks
    Every file that the seal of the checkpoint (`ckpt-rules seal`), a list by `sha256sum` (`SHA256SUMS`, `*.sha256`),
    Megatron-core's `integrity.json` or the metadata of the Hugging Face hub lists, in a local directory or in its
    cache: its size, then its digest. For a sealed checkpoint, also which files are missing and, as a warning, which are
    new; files that git and the hub's client keep for themselves (`.git`, `.gitattributes`, `.cache/huggingface`) are
    ignored. A file that was written after the hub downloaded it was edited locally: a warning.

    ## Why it matters
    A digest notices any change: a bit that flipped, a copy that stopped half-way, a file that somebody replaced. No
    other rule can distinguish a weight of 0.10 from one of 0.11.

    ## How to repair
    Copy the file again from where it was sealed or downloaded. If the change was intended, seal the checkpoint again
    with `--force`.
    """

    id = "integrity/digest"
    tags = frozenset({"integrity"})
    reads = Reads.BYTES

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """The digests of files whose size is as it should be."""
        return Wanted(digests=frozenset(_digest(p) for p in checkpoint.fact(promises) if _may_be_kept(checkpoint, p)))

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file that changed or vanished, one for all that appeared."""
        yield from _broken_seal(checkpoint)
        known = checkpoint.fact(promises)
        if not known:
            raise FactUnavailable(
                "there is nothing to compare the files with: no seal, no SHA256SUMS, no download metadata"
            )
        digests = read_all(checkpoint, self.wanted(checkpoint)).digests
        broken: dict[str, Problem] = {}
        for promise in known:
            for problem in _problems(checkpoint, promise, digests.get(_digest(promise))):
                broken.setdefault(promise.path, problem)
        found, files = list(broken.values()), {p.path for p in known}
        yield from found[:_MOST]
        if len(found) > _MOST:
            yield Problem(
                message=f"{len(found) - _MOST:,} more files have changed, {len(found):,} of {len(files):,} in total",
                help=_AGAIN,
                data={"files": len(found), "of": len(files)},
            )
        yield from _appeared(checkpoint)
        hidden = [path for path in files if _is_hidden(checkpoint, path)]
        if hidden:
            why = checkpoint.listing.truncated or "a directory can't be read"
            raise FactUnavailable(
                f"{len(hidden):,} of the {len(files):,} files could not be checked: {why}",
                path=".",
                blocked=True,
            )


def _digest(promise: Promise) -> Digest:
    return Digest(promise.path, promise.algorithm)


def _may_be_kept(checkpoint: Checkpoint, promise: Promise) -> bool:
    entry = checkpoint.listing.get(promise.path)
    is_file = entry is not None and entry.kind is EntryKind.FILE
    return is_file and promise.size in (None, entry.size if entry else None)


def _is_hidden(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a file may be there and not be listed: past a limit, or below what can't be listed."""
    listing = checkpoint.listing
    if listing.get(path) is not None:
        return False
    folders = accumulate(path.split("/")[:-1], "{}/{}".format)
    above = (listing.get(folder) for folder in folders)
    return listing.truncated is not None or any(e is not None and e.error is not None for e in above)


def _broken_seal(checkpoint: Checkpoint) -> Iterator[Problem]:
    try:
        _ = checkpoint.seal
    except FactUnavailable as absent:
        if absent.path is not None:
            yield Problem(
                message=absent.reason,
                place=Place(path=SEAL_NAME),
                help="copy the seal again from where it was written, or seal the checkpoint again with --force",
            )


def _problems(checkpoint: Checkpoint, promise: Promise, digest: str | None) -> Iterator[Problem]:
    """At most one problem."""
    if _is_hidden(checkpoint, promise.path):
        return
    entry = checkpoint.listing.get(promise.path)
    data: dict[str, object] = {"source": promise.source, "algorithm": promise.algorithm, "expected": promise.digest}
    place = Place(path=promise.path)
    if entry is None:
        yield Problem(
            message=f"the file is missing, although {promise.source} lists it", place=place, help=_AGAIN, data=data
        )
        return
    if entry.kind is not EntryKind.FILE:
        message = f"this is a {entry.kind.value}, but {promise.source} lists a file"
        yield Problem(message=message, place=place, help=_AGAIN, data=data)
        return
    edited = promise.until_ns is not None and entry.mtime_ns > promise.until_ns
    severity = Severity.WARNING if edited else None
    when = "; it was written after the download" if edited else ""
    if promise.size is not None and entry.size != promise.size:
        yield Problem(
            message=f"the file has {entry.size:,} bytes, but had {promise.size:,} when it was sealed",
            place=place,
            help=_AGAIN,
            data={**data, "size": entry.size, "expected_size": promise.size},
        )
    elif digest is not None and digest != promise.digest:
        yield Problem(
            message=f"the file's {promise.algorithm} digest is {digest[:16]}…, but {promise.source} says "
            f"{promise.digest[:16]}…: the content of its {entry.size:,} bytes has changed"
            f"{when}",
            place=place,
            help=_AGAIN,
            severity=severity,
            data={**data, "digest": digest, "size": entry.size},
        )


def _appeared(checkpoint: Checkpoint) -> Iterator[Problem]:
    try:
        known = {*checkpoint.seal.files, *_AFTER_THE_SEAL}
    except FactUnavailable:
        return
    new = [
        e.path
        for e in checkpoint.listing
        if e.kind is not EntryKind.DIRECTORY and e.path not in known and not is_bookkeeping(e.path)
    ]
    if new:
        more = f" and {len(new) - _SHOWN:,} more" if len(new) > _SHOWN else ""
        files = "1 file was" if len(new) == 1 else f"{len(new):,} files were"
        yield Problem(
            message=f"{files} not present when the checkpoint was sealed: {', '.join(new[:_SHOWN])}{more}",
            place=Place(path=new[0]),
            help="remove what does not belong in the checkpoint, or seal it again with --force",
            severity=Severity.WARNING,
            data={"files": new[:1000], "count": len(new)},
        )


class Unsigned(Rule):
    """There is no seal or checksum for the files of the checkpoint.

    ## What it checks
    Whether there is a seal, a list of checksums or the metadata of a download that `integrity/digest` can compare files
    with. This rule is in no built-in ruleset: teams that seal their checkpoints can select it.

    ## Why it matters
    Without a digest, a changed weight can't be distinguished from a trained one.

    ## How to repair
    Run `ckpt-rules seal PATH` when the save is complete, from the training loop or right after it.
    """

    id = "integrity/unsigned"
    severity = Severity.INFO
    tags = frozenset({"integrity"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        has_seal = checkpoint.listing.get(SEAL_NAME) is not None  # a damaged one is integrity/digest's to report
        if not has_seal and not checkpoint.fact(promises):
            yield Problem(
                message=f"no seal or list of checksums covers the {len(checkpoint.listing.files()):,} files",
                help="run 'ckpt-rules seal' on the checkpoint when the save is complete",
            )

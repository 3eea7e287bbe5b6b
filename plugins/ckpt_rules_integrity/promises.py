"""What files of a checkpoint promise about others: our seal, lists of checksums, Megatron's manifest, and what the hub noted when it downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import SEAL_NAME, Checkpoint, Entry, EntryKind, FactUnavailable

_LISTS = re.compile(r"sha256sums?(?:\.txt)?|checksums?\.sha256|.+\.sha256(?:sums?)?", re.IGNORECASE)
_GNU = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-fA-F]{64}) [ *](?P<path>.+)")
_BSD = re.compile(r"(?P<escaped>\\?)SHA256 \((?P<path>.+)\) = (?P<digest>[0-9a-fA-F]{64})")
_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}
_BARE = re.compile(r"[0-9a-fA-F]{64}")
_MANIFEST = "integrity.json"
_HUB = ".cache/huggingface/download/"
_BLOB = re.compile(r"(?:\.\./)+blobs/(?P<digest>[0-9a-f]{64}|[0-9a-f]{40})")
_ETAGS = {64: "sha256", 40: "git-sha1"}
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Promise:
    """What one file should be.

    path:      the file
    algorithm: of the digest: `blake3`, `sha256` or `git-sha1`
    digest:    in lower-case hexadecimal
    source:    the file that says so; of a link into the hub's cache the link itself
    size:      bytes, or None where that is not said
    until_ns:  the time up to which it was true, in nanoseconds since the epoch; a file that was written later was changed
               by its owner. None where there is no such time
    """

    path: str
    algorithm: str
    digest: str
    source: str
    size: int | None = None
    until_ns: int | None = None


def promises(checkpoint: Checkpoint) -> tuple[Promise, ...]:
    """All of them, the seal's first. A fact. Those of a seal that can't be read are left out."""
    return (
        *_sealed(checkpoint),
        *_listed(checkpoint),
        *_in_manifests(checkpoint),
        *_downloaded(checkpoint),
        *_linked(checkpoint),
    )


def _sealed(checkpoint: Checkpoint) -> Iterator[Promise]:
    try:
        seal = checkpoint.seal
    except FactUnavailable:
        return
    for path, file in seal.files.items():
        yield Promise(path, seal.algorithm, file.digest, SEAL_NAME, file.size)


def _listed(checkpoint: Checkpoint) -> Iterator[Promise]:
    for entry in checkpoint.listing.files():
        if _LISTS.fullmatch(entry.name):
            try:
                text = checkpoint.files.text(entry.path)
            except FactUnavailable:
                continue
            for name, digest in _lines(checkpoint, entry, text):
                path = _place(checkpoint, entry, name.removeprefix("./"))
                if path is not None:
                    yield Promise(path, "sha256", digest.lower(), entry.path)


def _lines(checkpoint: Checkpoint, entry: Entry, text: str) -> Iterator[tuple[str, str]]:
    """Names and digests, as `sha256sum` writes them with or without `--tag`; a digest alone is that of the file the list is named for."""
    for ended in text.split("\n"):
        line = ended.removesuffix("\r")
        if match := _GNU.fullmatch(line) or _BSD.fullmatch(line):
            name = match["path"]
            yield _ESCAPE.sub(lambda m: _ESCAPED[m[1]], name) if match["escaped"] else name, match["digest"]
        elif _BARE.fullmatch(line.strip()) and checkpoint.listing.has_file(entry.path.rpartition(".")[0]):
            yield entry.name.rpartition(".")[0], line.strip()


def _place(checkpoint: Checkpoint, entry: Entry, name: str) -> str | None:
    """The file that a list means: beside it, or where `sha256sum` was run at the top, below that; None outside of the checkpoint."""
    if name.startswith("/") or ".." in name.split("/"):
        return None
    beside = f"{entry.parent}/{name}" if entry.parent else name
    if entry.path in (beside, name):
        return None  # a list can't hold its own digest; it was there, empty, when the shell began to write it
    listing = checkpoint.listing
    return name if listing.get(beside) is None and listing.get(name) is not None else beside


def _in_manifests(checkpoint: Checkpoint) -> Iterator[Promise]:
    """Megatron-core's `integrity.json`: the digest of each file beside it, by its name."""
    for entry in checkpoint.listing.files(_MANIFEST):
        try:
            said = checkpoint.files.contents(entry.path)
        except FactUnavailable:
            continue
        files = said.get("files") if isinstance(said, Mapping) and said.get("algorithm", "sha256") == "sha256" else None
        for name, digest in files.items() if isinstance(files, Mapping) else ():
            if isinstance(name, str) and isinstance(digest, str) and _BARE.fullmatch(digest):
                path = _place(checkpoint, entry, name)
                if path is not None:
                    yield Promise(path, "sha256", digest.lower(), entry.path)


def _downloaded(checkpoint: Checkpoint) -> Iterator[Promise]:
    """What huggingface_hub notes of each file that it puts into a local directory: commit, etag, time."""
    for entry in checkpoint.listing.files():
        if entry.path.startswith(_HUB) and entry.suffix == ".metadata":
            lines = (checkpoint.files.small_text(entry.path) or "").splitlines()
            path = entry.path.removeprefix(_HUB).removesuffix(".metadata")
            if len(lines) < 3 or len(lines[1]) not in _ETAGS or not checkpoint.listing.has_file(path):
                continue
            try:
                until = int(float(lines[2]) * _SECOND_NS)
            except (ValueError, OverflowError):
                continue
            yield Promise(path, _ETAGS[len(lines[1])], lines[1], entry.path, until_ns=until + _SECOND_NS)


def _linked(checkpoint: Checkpoint) -> Iterator[Promise]:
    """Files of a snapshot in the hub's cache: links to blobs that are named by their digest."""
    for entry in checkpoint.listing:
        match = _BLOB.fullmatch(entry.link or "")
        if match and entry.kind is EntryKind.FILE:
            yield Promise(entry.path, _ETAGS[len(match["digest"])], match["digest"], entry.path)

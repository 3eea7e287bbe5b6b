"""weights/broken-orbax-item: whether the items of an Orbax checkpoint are whole, as far as their frames and headers tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, Entry, FactUnavailable, OcdbtDatabase, Place, Problem, Rule, Severity
from ckpt_rules_jax.aggregate import FILE
from ckpt_rules_jax.chunks import chunk_faults
from ckpt_rules_jax.orbax import (
    JSON_ITEM,
    MANIFEST,
    PARTS,
    above,
    array_names,
    item_folders,
    named_items,
    tree_of,
    zarr_folders,
)
from ckpt_rules_jax.stores import Store, store_of
from ckpt_rules_jax.zarr import DESCRIBES

# The frames of OCDBT, https://google.github.io/tensorstore/kvstore/ocdbt/index.html: a magic number, then the length of all.
_MANIFEST_MAGIC, _NODE_MAGIC = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
_IS_DATA_FILE = re.compile(r"(?:.*/)?d/[0-9a-f]{32}")
_MARKER, _TREE = "_CHECKPOINT_METADATA", "_METADATA"
_JSON = frozenset({_MARKER, _TREE, "_sharding", *DESCRIBES})


class BrokenOrbaxItem(Rule):
    """A file of an Orbax checkpoint is damaged, or an array lacks a part.

    ## What it checks
    That the metadata of the step and of each item is JSON. Of OCDBT, the manifest and every node of its tree: their
    checksums, and that each file that the tree refers to, in whichever `d/`, is there and as long as the furthest reference.
    Of zarr, versions 2 and 3, in OCDBT or in files: that the arrays that `_METADATA`, or before it `checkpoint`, names are
    there with all their chunks, and that each chunk is packed as it should be, by its headers: zstd, or none. Nothing is unpacked; a chunk in which a
    byte was changed is not seen. What the tree does not lead to, and the trees that single processes wrote, a restore does
    not read: damage there is a warning.

    ## Why it matters
    Orbax restores nothing from a step with one such file, and says so only after the job has started.

    ## How to repair
    Copy the step again if the original is whole; otherwise resume from an earlier step.
    """

    id = "weights/broken-orbax-item"
    tags = frozenset({"load", "resume"})
    applies_to = frozenset({"orbax"})

    blocks: int = Field(
        default=20_000,
        ge=0,
        description="Blocks of zstd, of at most 128 KiB of values each, whose headers are walked; of chunks past "
        "that, just the first bytes are looked at.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file, or array of which something is missing."""
        items = item_folders(checkpoint)
        stores = [store_of(checkpoint, folder) for folder in sorted({*items, *zarr_folders(checkpoint)})]
        listed = checkpoint.listing.files(MANIFEST)
        parts = [checkpoint.ocdbt(e.path, False) for e in listed if PARTS in e.path]
        trees = [*(store.database for store in stores if store.database), *parts]
        found = list(_files(checkpoint, {path for tree in trees for path in _read(tree)}))
        for store in stores:
            found += _of_store(checkpoint, store, self.blocks)
        yield from found
        named = {problem.place.path for problem in found}
        for tree in parts:
            yield from (p for p in _tree(checkpoint, tree, Severity.WARNING) if p.place.path not in named)
        for store in stores:
            _must_be_known(store)


def _of_store(checkpoint: Checkpoint, store: Store, most: int) -> Iterator[Problem]:
    if store.database:
        yield from _tree(checkpoint, store.database)
    yield from _arrays(checkpoint, store)
    yield from _chunks(checkpoint, store, most)


def _problem(path: str, message: str, severity: Severity | None = None) -> Problem:
    help_ = "copy it again if the original is whole, or resume from an earlier step"
    return Problem(message=message, place=Place(path=path), help=help_, severity=severity)


def _read(database: OcdbtDatabase) -> set[str]:
    return {database.path, *(database.reach or ())}


def _files(checkpoint: Checkpoint, read: set[str]) -> Iterator[Problem]:
    """Each file by itself; those that a tree leads to are looked at as parts of the tree."""
    items = named_items(checkpoint)
    texts = frozenset(f"{name}/{JSON_ITEM}" for name, file in items.items() if file == JSON_ITEM)
    for entry in checkpoint.listing.files():
        fault = _fault(checkpoint, entry, texts) if entry.path not in read else None
        if fault:
            needed = entry.name != _MARKER and "ocdbt.process_" not in entry.path
            yield _problem(entry.path, f"{entry.path} {fault}", None if needed else Severity.WARNING)


def _fault(checkpoint: Checkpoint, entry: Entry, texts: frozenset[str]) -> str | None:
    """What is wrong with one file, to follow its path; `texts` are further files of JSON."""
    if entry.name in _JSON or entry.path in texts or entry.parent.endswith("array_metadatas"):
        fatal = next((p for p in checkpoint.json(entry.path).problems if p.fatal), None)
        return f"is no JSON: {fatal.message}" if fatal else None
    if entry.name == MANIFEST:
        return _of_frame(checkpoint, entry, _MANIFEST_MAGIC, "manifest")
    return _of_data(checkpoint, entry) if _IS_DATA_FILE.fullmatch(entry.path) else None


def _of_frame(checkpoint: Checkpoint, entry: Entry, magic: bytes, what: str) -> str | None:
    head = checkpoint.head(entry.path)
    if head.error is not None:
        return None
    if not head.head.startswith(magic):
        return f"is no OCDBT {what}: its content is {head.content.value}"
    length = int.from_bytes(head.head[4:12], "little")
    return f"is {entry.size:,} bytes long where its frame says {length:,}" if length != entry.size else None


def _of_data(checkpoint: Checkpoint, entry: Entry) -> str | None:
    """Nodes begin with their length, and others may follow; values have no frame."""
    head = checkpoint.head(entry.path)
    if not entry.size:
        return "is empty"
    if head.error is not None or not head.head.startswith(_NODE_MAGIC):
        return None
    length = int.from_bytes(head.head[4:12], "little")
    return f"ends after {entry.size:,} bytes, within a node of {length:,}" if length > entry.size else None


def _tree(checkpoint: Checkpoint, database: OcdbtDatabase, severity: Severity | None = None) -> Iterator[Problem]:
    """Faults of manifest and nodes, and files that are missing or too short; that all are, `files/missing-required` says."""
    for path, problem in database.problems:
        if problem.fatal:
            yield _problem(path, f"{path}: {problem.message}", severity)
    usual = f"{database.path.removesuffix(MANIFEST)}d"
    for path, reach in (database.reach or {}).items():
        entry = checkpoint.listing.get(path)
        if entry is None and checkpoint.listing.truncated is None:
            if path.rpartition("/")[0] != usual or severity or checkpoint.listing.get(usual):
                yield _problem(path, f"{path} is missing, and {database.path} leads to it", severity)
        elif checkpoint.listing.has_file(path) and entry is not None and entry.size < reach:
            words = f"{path} has {entry.size:,} bytes, where {database.path} leads to byte {reach:,} of it"
            yield _problem(path, words, severity)


def _arrays(checkpoint: Checkpoint, store: Store) -> Iterator[Problem]:
    """Arrays that the metadata name, and chunks of them, that are not there."""
    if not store.complete:
        return
    for name in array_names(checkpoint, store.folder) if store.database else ():
        if not any(f"{name}/{file}" in store.values for file in DESCRIBES):
            path = store.path(name)
            newer = checkpoint.listing.has_file(f"{above(store.folder)}{_TREE}")
            tree = f"{above(store.folder)}{_TREE if newer else FILE}"
            yield _problem(path, f"{path} leads to no array {name}, which {tree} names")
    # Where chunks of nothing but the fill value may be left out, none is missed.
    if tree_of(checkpoint, store.folder).get("store_array_data_equal_to_fill_value") is not True:
        return
    missing: dict[str, list[str]] = defaultdict(list)
    for array, key in store.chunks():
        if key not in store.values:
            missing[array.name].append(key)
    for name, keys in missing.items():
        words = f"{above(store.folder)}{name} lacks {len(keys):,} of its chunks, the first of them {keys[0]}"
        yield _problem(store.path(keys[0]), words)


def _chunks(checkpoint: Checkpoint, store: Store, most: int) -> Iterator[Problem]:
    """One problem for each file with chunks that are damaged."""
    reach = (store.database.reach if store.database else None) or {}
    sizes = ((e.path, e.size) for e in checkpoint.listing.files())
    whole = {path for path, size in sizes if size >= max(1, reach.get(path, 1))}
    found: dict[str, list[str]] = defaultdict(list)
    for path, key, fault in chunk_faults(checkpoint, store, whole, most):
        found[path].append(f"chunk {key} {fault}")
    for path, faults in found.items():
        more = f"; {len(faults) - 1:,} more of its chunks are damaged" if len(faults) > 1 else ""
        yield _problem(path, f"{path}: {faults[0]}{more}")
    if store.database is None:
        empty = (store.values.get(key) for _, key in store.chunks())
        yield from (_problem(v.path, f"{v.path} is empty") for v in empty if v is not None and not v.nbytes)


def _must_be_known(store: Store) -> None:
    for path, problem in store.database.problems if store.database else ():
        if not problem.fatal:
            raise FactUnavailable(f"{path} was not read to its end: {problem.message}", path=path, blocked=True)

"""weights/broken-orbax-item: whether the items of an Orbax checkpoint are whole, as far as their frames tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice, product

from ckpt_rules import Checkpoint, Content, Entry, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_jax.orbax import JSON_ITEM, item_folders, named_items

# The frames of OCDBT, https://google.github.io/tensorstore/kvstore/ocdbt/index.html: a magic number, then the length of all.
_MANIFEST_MAGIC, _NODE_MAGIC = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
# Manifests are compressed, and bytes that repeat nothing stay plain: a name with just its digits around is whole.
_DATA_FILE = re.compile(rb"d/([0-9a-f]{32})(?![0-9a-f])")
_IS_DATA_FILE = re.compile(r"(?:.*/)?d/[0-9a-f]{32}")
_MARKER, _TREE = "_CHECKPOINT_METADATA", "_METADATA"
_JSON = frozenset({_MARKER, _TREE, "_sharding", ".zarray"})
_MOST_CHUNKS = 10_000


class BrokenOrbaxItem(Rule):
    """A file of an Orbax checkpoint is damaged, or an array lacks a part.

    ## What it checks
    That the metadata of the step and of each item is JSON; that manifests and files of data in OCDBT are as long as they say, as
    far as their first bytes tell, and that files of data which a manifest names are there; that arrays in zarr have
    all their chunks. The arrays themselves are not looked into.

    ## Why it matters
    Orbax restores nothing from a step with one such file, and says so only after the job has started.

    ## How to repair
    Copy the step again if the original is whole; otherwise resume from an earlier step.
    """

    id = "weights/broken-orbax-item"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file, or array of which something is missing."""
        if checkpoint.layout.name != "orbax":
            raise FactUnavailable("it is no Orbax checkpoint")
        items = named_items(checkpoint)
        texts = frozenset(f"{name}/{JSON_ITEM}" for name, file in items.items() if file == JSON_ITEM)
        for entry in checkpoint.listing.files():
            fault = _fault(checkpoint, entry, texts)
            if fault:
                needed = entry.name != _MARKER and "ocdbt.process_" not in entry.path
                yield _problem(entry.path, f"{entry.path} {fault}", None if needed else Severity.WARNING)
        for folder in item_folders(checkpoint):
            yield from _unnamed(checkpoint, folder)
        for entry in checkpoint.listing.files(".zarray"):
            yield from _chunks(checkpoint, entry)


def _problem(path: str, message: str, severity: Severity | None = None) -> Problem:
    help_ = "copy it again if the original is whole, or resume from an earlier step"
    return Problem(message=message, place=Place(path=path), help=help_, severity=severity)


def _fault(checkpoint: Checkpoint, entry: Entry, texts: frozenset[str]) -> str | None:
    """What is wrong with one file, to follow its path; `texts` are further files of JSON."""
    if entry.name in _JSON or entry.path in texts or entry.parent.endswith("array_metadatas"):
        fatal = next((p for p in checkpoint.json(entry.path).problems if p.fatal), None)
        return f"is no JSON: {fatal.message}" if fatal else None
    if entry.name == "manifest.ocdbt":
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


def _unnamed(checkpoint: Checkpoint, folder: str) -> Iterator[Problem]:
    """Files of data that a manifest names in plain bytes: absent, or zero where the root of the tree should be.

    Where there are none at all, `files/missing-required` says so.
    """
    above = f"{folder}/" if folder else ""
    path = f"{above}manifest.ocdbt"
    head = checkpoint.head(path) if checkpoint.listing.has_file(path) else None
    for name in sorted(set(_DATA_FILE.findall(head.head))) if head is not None and head.error is None else ():
        file = f"{above}d/{name.decode()}"
        if checkpoint.listing.get(f"{above}d") is None:
            return
        if not checkpoint.listing.files(name.decode()):
            yield _problem(file, f"{file} is missing, and {path} names it")
        elif checkpoint.listing.has_file(file) and checkpoint.head(file).content is Content.ZEROS:
            yield _problem(file, f"{file} holds zero bytes where {path} has the root of its tree")


def _chunks(checkpoint: Checkpoint, entry: Entry) -> Iterator[Problem]:
    """Chunks of one array in zarr, of which Orbax writes all."""
    values = checkpoint.json(entry.path).value
    sides = list(_sides(values)) if isinstance(values, Mapping) and _writes_all(checkpoint, entry) else []
    if not sides:
        return
    dot = values.get("dimension_separator", ".") if isinstance(values, Mapping) else "."
    names = (str(dot).join(map(str, index)) for index in islice(product(*sides), _MOST_CHUNKS))
    found = {n: checkpoint.listing.get(f"{entry.parent}/{n}") for n in names}
    yield from (_problem(e.path, f"{e.path} is empty") for e in found.values() if e is not None and not e.size)
    missing = [name for name, chunk in found.items() if chunk is None]
    if missing and checkpoint.listing.truncated is None:
        words = f"{entry.parent} lacks {len(missing):,} of its chunks, the first of them {missing[0]}"
        yield _problem(f"{entry.parent}/{missing[0]}", words)


def _writes_all(checkpoint: Checkpoint, entry: Entry) -> bool:
    """Whether chunks that hold nothing but the fill value are written too, as the item says."""
    above = entry.parent.rpartition("/")[0]
    path = f"{above}/{_TREE}" if above else _TREE
    values = checkpoint.json(path).value if checkpoint.listing.has_file(path) else None
    return isinstance(values, Mapping) and values.get("store_array_data_equal_to_fill_value") is True


def _sides(values: Mapping[str, object]) -> Iterator[range]:
    """The numbers of chunks along each dimension; nothing where shape and chunks make no sense. A scalar has one chunk, 0."""
    shape, chunks = values.get("shape"), values.get("chunks")
    if not (isinstance(shape, list) and isinstance(chunks, list) and len(shape) == len(chunks)):
        return
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in shape) or not all(type(n) is int and n > 0 for n in chunks):
        return
    yield from (range(-(-length // chunk)) for length, chunk in zip(shape, chunks, strict=True))
    if not shape:
        yield range(1)

"""Whether each file of an Orbax checkpoint is what its name says, by its first bytes and its length."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Entry, Problem, Severity
from ckpt_rules_jax.items.problems import problem
from ckpt_rules_jax.orbax import JSON_ITEM, MANIFEST, named_items
from ckpt_rules_jax.zarr import DESCRIBES

# The frames of OCDBT, https://google.github.io/tensorstore/kvstore/ocdbt/index.html: a magic number, then the length of all.
_MANIFEST_MAGIC, _NODE_MAGIC = b"\x0c\xdb\x3a\x2a", b"\x0c\xdb\x20\xde"
_IS_DATA_FILE = re.compile(r"(?:.*/)?d/[0-9a-f]{32}")
_MARKER, _TREE = "_CHECKPOINT_METADATA", "_METADATA"
_JSON = frozenset({_MARKER, _TREE, "_sharding", *DESCRIBES})


def damaged_files(checkpoint: Checkpoint, read: set[str]) -> Iterator[Problem]:
    """Each file by itself; those that a tree leads to are looked at as parts of the tree."""
    items = named_items(checkpoint)
    texts = frozenset(f"{name}/{JSON_ITEM}" for name, file in items.items() if file == JSON_ITEM)
    for entry in checkpoint.listing.files():
        fault = _fault(checkpoint, entry, texts) if entry.path not in read else None
        if fault:
            needed = entry.name != _MARKER and "ocdbt.process_" not in entry.path
            yield problem(entry.path, f"{entry.path} {fault}", None if needed else Severity.WARNING)


def _fault(checkpoint: Checkpoint, entry: Entry, texts: frozenset[str]) -> str | None:
    """What is wrong with one file, to follow its path; `texts` are further files of JSON."""
    if entry.name in _JSON or entry.path in texts or entry.parent.endswith("array_metadatas"):
        fatal = next((p for p in checkpoint.files.json(entry.path).problems if p.fatal), None)
        return f"is not JSON: {fatal.message}" if fatal else None
    if entry.name == MANIFEST:
        return _of_frame(checkpoint, entry, _MANIFEST_MAGIC, "manifest")
    return _of_data(checkpoint, entry) if _IS_DATA_FILE.fullmatch(entry.path) else None


def _of_frame(checkpoint: Checkpoint, entry: Entry, magic: bytes, what: str) -> str | None:
    head = checkpoint.files.sniff(entry.path)
    if head.error is not None:
        return None
    if not head.head.startswith(magic):
        return f"is not an OCDBT {what}: its content is {head.content.value}"
    length = int.from_bytes(head.head[4:12], "little")
    return f"is {entry.size:,} bytes long, but its frame says {length:,}" if length != entry.size else None


def _of_data(checkpoint: Checkpoint, entry: Entry) -> str | None:
    """Nodes begin with their length, and others may follow; values have no frame."""
    head = checkpoint.files.sniff(entry.path)
    if not entry.size:
        return "is empty"
    if head.error is not None or not head.head.startswith(_NODE_MAGIC):
        return None
    length = int.from_bytes(head.head[4:12], "little")
    return f"ends after {entry.size:,} bytes, within a node of {length:,}" if length > entry.size else None

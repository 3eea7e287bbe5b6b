"""What lies under the keys of one item of Orbax, whether OCDBT keeps it or each key is a file of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ckpt_rules import Checkpoint, OcdbtDatabase, StoredValue
from ckpt_rules_jax.orbax import MANIFEST, PARTS, above
from ckpt_rules_jax.zarr import DESCRIBES, ZarrArray, array_of

_MOST_MISSING = 1_000


@dataclass(frozen=True, slots=True)
class Store:
    """The keys of one item.

    database: what its manifest leads to; None where each key is a file
    complete: whether a key that is not in `values` is not there
    """

    folder: str
    values: Mapping[str, StoredValue]
    arrays: tuple[ZarrArray, ...]
    database: OcdbtDatabase | None
    complete: bool

    def path(self, key: str) -> str:
        """The file that holds a key, or the manifest that leads to it."""
        value = self.values.get(key)
        if self.database is None:
            return f"{above(self.folder)}{key}"
        return value.path if value is not None and value.path else self.database.path

    def chunks(self) -> Iterator[tuple[ZarrArray, str]]:
        """Each array with the key of each of its chunks; no more of them than there are keys, and some that are missing."""
        every = ((array, key) for array in self.arrays for key in array.chunk_keys())
        return islice(every, len(self.values) + _MOST_MISSING)


def store_of(checkpoint: Checkpoint, folder: str) -> Store:
    """The keys of the item in a directory."""
    path = f"{above(folder)}{MANIFEST}"
    database = checkpoint.files.ocdbt(path) if checkpoint.listing.has_file(path) else None
    if database is None:
        values, complete = _files(checkpoint, folder), checkpoint.listing.truncated is None
    else:
        values, complete = {v.key: v for v in database.values}, database.complete
    arrays = [_array(checkpoint, value) for key, value in values.items() if key.rpartition("/")[2] in DESCRIBES]
    return Store(folder, values, tuple(a for a in arrays if a), database, complete)


def _files(checkpoint: Checkpoint, folder: str) -> dict[str, StoredValue]:
    start = above(folder)
    found = ((e.path.removeprefix(start), e) for e in checkpoint.listing.files() if e.path.startswith(start))
    return {key: StoredValue(key, e.size, e.path) for key, e in found if not key.startswith(PARTS)}


def _array(checkpoint: Checkpoint, value: StoredValue) -> ZarrArray | None:
    name = value.key.rpartition("/")[0]
    if value.inline is None and not value.offset and value.path.endswith(f"/{value.key}"):
        return array_of(name, checkpoint.files.json(value.path).value)
    return array_of(name, _parsed(_bytes(checkpoint, value)))


def _bytes(checkpoint: Checkpoint, value: StoredValue) -> bytes:
    if value.inline is not None:
        return value.inline
    entry = checkpoint.listing.get(value.path)
    if entry is None or not checkpoint.listing.has_file(value.path) or entry.size < value.offset + value.nbytes:
        return b""
    return checkpoint.files.byte_ranges(value.path, ((value.offset, value.nbytes),))[0]


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None

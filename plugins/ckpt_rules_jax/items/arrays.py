"""Whether the arrays that metadata name are there, with all their chunks, and each chunk packed as it should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Problem
from ckpt_rules_jax.aggregate import FILE
from ckpt_rules_jax.chunks import chunk_faults
from ckpt_rules_jax.items.problems import problem
from ckpt_rules_jax.orbax import above, array_names, tree_of
from ckpt_rules_jax.stores import Store
from ckpt_rules_jax.zarr import DESCRIBES

_TREE = "_METADATA"


def missing_arrays(checkpoint: Checkpoint, store: Store) -> Iterator[Problem]:
    """Arrays that the metadata name, and chunks of them, that are not there."""
    if not store.complete:
        return
    for name in array_names(checkpoint, store.folder) if store.database else ():
        if not any(f"{name}/{file}" in store.values for file in DESCRIBES):
            path = store.path(name)
            newer = checkpoint.listing.has_file(f"{above(store.folder)}{_TREE}")
            tree = f"{above(store.folder)}{_TREE if newer else FILE}"
            yield problem(path, f"{path} contains no array {name}, which {tree} lists")
    # Where chunks of nothing but the fill value may be left out, none is missed.
    if tree_of(checkpoint, store.folder).get("store_array_data_equal_to_fill_value") is not True:
        return
    missing: dict[str, list[str]] = defaultdict(list)
    for array, key in store.chunks():
        if key not in store.values:
            missing[array.name].append(key)
    for name, keys in missing.items():
        words = f"{above(store.folder)}{name} lacks {len(keys):,} of its chunks, the first being {keys[0]}"
        yield problem(store.path(keys[0]), words)


def damaged_chunks(checkpoint: Checkpoint, store: Store, most: int) -> Iterator[Problem]:
    """One problem for each file with chunks that are damaged."""
    reach = (store.database.reach if store.database else None) or {}
    sizes = ((e.path, e.size) for e in checkpoint.listing.files())
    whole = {path for path, size in sizes if size >= max(1, reach.get(path, 1))}
    found: dict[str, list[str]] = defaultdict(list)
    for path, key, fault in chunk_faults(checkpoint, store, whole, most):
        found[path].append(f"chunk {key} {fault}")
    for path, faults in found.items():
        more = f"; {len(faults) - 1:,} more of its chunks are damaged" if len(faults) > 1 else ""
        yield problem(path, f"{path}: {faults[0]}{more}")
    if store.database is None:
        empty = (store.values.get(key) for _, key in store.chunks())
        yield from (problem(v.path, f"{v.path} is empty") for v in empty if v is not None and not v.nbytes)

"""Whether the tree of an OCDBT database is whole, and leads to files that are there."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, OcdbtDatabase, Problem, Severity
from ckpt_rules_jax.items.problems import problem
from ckpt_rules_jax.orbax import MANIFEST
from ckpt_rules_jax.stores import Store


def broken_tree(checkpoint: Checkpoint, database: OcdbtDatabase, severity: Severity | None = None) -> Iterator[Problem]:
    """Faults of manifest and nodes, and files that are missing or too short; that all are, `files/missing-required` says."""
    for path, fault in database.problems:
        if fault.fatal:
            yield problem(path, f"{path}: {fault.message}", severity)
    usual = f"{database.path.removesuffix(MANIFEST)}d"
    for path, reach in (database.reach or {}).items():
        entry = checkpoint.listing.get(path)
        if entry is None and checkpoint.listing.truncated is None:
            if path.rpartition("/")[0] != usual or severity or checkpoint.listing.get(usual):
                yield problem(path, f"{path} is missing, but {database.path} refers to it", severity)
        elif checkpoint.listing.has_file(path) and entry is not None and entry.size < reach:
            words = f"{path} has {entry.size:,} bytes, but {database.path} refers to byte {reach:,} of it"
            yield problem(path, words, severity)


def read_by(database: OcdbtDatabase) -> set[str]:
    """The files that a restore reads for it."""
    return {database.path, *(database.reach or ())}


def must_be_known(store: Store) -> None:
    """FactUnavailable, blocked, where a part of the tree was not read, so that nobody knows what it leads to."""
    for path, fault in store.database.problems if store.database else ():
        if not fault.fatal:
            raise FactUnavailable(f"{path} was not read to its end: {fault.message}", path=path, blocked=True)

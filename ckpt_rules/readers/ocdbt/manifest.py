"""OCDBT databases: a manifest, and the B+tree that it leads to, over files of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from ckpt_rules.facts.ocdbt import OcdbtDatabase, StoredValue
from ckpt_rules.facts.tensors import ReadProblem
from ckpt_rules.readers.budget import Budget, LimitError
from ckpt_rules.readers.damage import MAX_PROBLEMS, Damage
from ckpt_rules.readers.ocdbt.frame import MANIFEST, NODE, body_of
from ckpt_rules.readers.ocdbt.tables import Child, File, Leaf, entries_of, root_of
from ckpt_rules.storage import Source

Opened = Callable[[str], AbstractContextManager[Source] | None]
"""A file by its path in the checkpoint; None where it can't be read."""

_VALUE_NBYTES = 250
"""What CPython takes for a value, besides its key and bytes."""

_MOST_NODES = 100_000


def read_ocdbt(source: Source, path: str, budget: Budget, opened: Opened, *, values: bool = True) -> OcdbtDatabase:
    """The newest version of the database whose manifest `source` is; without values just what the tree refers to."""
    walk = _Walk(path, budget, opened, values=values)
    try:
        budget.check_size(source.size, "the manifest")
        root = root_of(body_of(source.read(0, source.size), MANIFEST, 0, budget))
    except Damage as damage:
        walk.note(path, damage)
    else:
        walk.down_from(root)
    reach = dict(sorted(walk.reach.items()))
    return OcdbtDatabase(path, tuple(walk.values), reach, walk.complete, tuple(walk.problems))


class _Walk:
    """One way through a tree, each node once."""

    def __init__(self, path: str, budget: Budget, opened: Opened, *, values: bool) -> None:
        self.keeps = values
        self.taken = 0
        self.above = path.removesuffix(path.rpartition("/")[2])
        self.budget = budget
        self.opened = opened
        self.values: list[StoredValue] = []
        self.reach: dict[str, int] = {}
        self.problems: list[tuple[str, ReadProblem]] = []
        self.complete = True

    def note(self, path: str, damage: Damage) -> None:
        self.complete = False
        if len(self.problems) < MAX_PROBLEMS:
            fatal = not isinstance(damage, LimitError)
            self.problems.append((path, ReadProblem(damage.code, damage.reason, damage.offset, fatal=fatal)))

    def down_from(self, root: Child | None) -> None:
        waiting = [root] if root else []
        self.complete = root is not None
        seen: set[Child] = set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            path = self.refer(node.file, node.offset + node.nbytes)
            try:
                if len(seen) > _MOST_NODES:
                    raise LimitError(f"the tree has more than the {_MOST_NODES:,} nodes that are read")
                for entry in reversed(self.node(path, node)):
                    if isinstance(entry, Leaf):
                        self.keep(entry)
                    else:
                        waiting.append(entry)
            except Damage as damage:
                self.note(path, damage)
                if isinstance(damage, LimitError):
                    return
        self.values.sort(key=lambda value: value.key)

    def node(self, path: str, node: Child) -> Sequence[Child | Leaf]:
        source = self.opened(path)
        if source is None:
            self.complete = False
            return []
        with source as file:
            if node.offset + node.nbytes > file.size:
                self.complete = False
                return []
            self.take(node.nbytes)
            data = file.read(node.offset, node.nbytes)
        cursor = body_of(data, NODE, node.offset, self.budget)
        self.take(len(cursor.data))
        return entries_of(cursor, node)

    def take(self, nbytes: int) -> None:
        """Count what was read, so that a small file that unpacks into much again and again comes to an end."""
        self.taken += nbytes
        self.budget.check_size(self.taken, "the nodes of the tree")

    def keep(self, leaf: Leaf) -> None:
        path = self.refer(leaf.file, leaf.offset + leaf.nbytes) if leaf.file else ""
        if not self.keeps:
            return
        self.budget.charge(_VALUE_NBYTES + len(leaf.key) + len(leaf.inline or b""), "the tree of an OCDBT database")
        key = leaf.key.decode("utf-8", "surrogateescape")
        self.values.append(StoredValue(key, leaf.nbytes, path, leaf.offset, leaf.inline))

    def refer(self, file: File, end: int) -> str:
        path = self.above + file.path.decode("utf-8", "surrogateescape")
        self.reach[path] = max(end, self.reach.get(path, 0))
        return path

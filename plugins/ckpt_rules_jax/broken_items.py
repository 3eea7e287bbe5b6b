"""weights/broken-orbax-item: whether the items of an Orbax checkpoint are whole, as far as their frames and headers tell."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, Problem, Rule, Severity
from ckpt_rules_jax.items.arrays import damaged_chunks, missing_arrays
from ckpt_rules_jax.items.files import damaged_files
from ckpt_rules_jax.items.trees import broken_tree, must_be_known, read_by
from ckpt_rules_jax.orbax import MANIFEST, PARTS, item_folders, zarr_folders
from ckpt_rules_jax.stores import Store, store_of


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
        stores = [
            store_of(checkpoint, folder) for folder in sorted({*item_folders(checkpoint), *zarr_folders(checkpoint)})
        ]
        # What single processes wrote, before one of them merged it; a restore reads the merged tree.
        parts = [checkpoint.files.ocdbt(e.path, False) for e in checkpoint.listing.files(MANIFEST) if PARTS in e.path]
        trees = [*(store.database for store in stores if store.database), *parts]
        found = list(damaged_files(checkpoint, {path for tree in trees for path in read_by(tree)}))
        for store in stores:
            found += self._in_store(checkpoint, store)
        yield from found
        named = {problem.place.path for problem in found}
        for tree in parts:
            yield from (p for p in broken_tree(checkpoint, tree, Severity.WARNING) if p.place.path not in named)
        for store in stores:
            must_be_known(store)

    def _in_store(self, checkpoint: Checkpoint, store: Store) -> Iterator[Problem]:
        if store.database:
            yield from broken_tree(checkpoint, store.database)
        yield from missing_arrays(checkpoint, store)
        yield from damaged_chunks(checkpoint, store, self.blocks)

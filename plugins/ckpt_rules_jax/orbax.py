"""Orbax: a directory for each step, with an item in each of its directories, or one item by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Layout,
    ModelConfig,
    Progress,
    Recorded,
    Requirement,
    ResumePlan,
    Severity,
    Sign,
    Signature,
    Weights,
    own_name,
    saves_among,
)
from ckpt_rules_jax import aggregate

_STEP_MARKER, _ITEM_MARKER = "_CHECKPOINT_METADATA", "_METADATA"
_COMMITTED = "commit_success.txt"
_OF_V1 = "orbax.checkpoint"
_NAME = re.compile(r"[\w\-.]+")
JSON_ITEM = "metadata"
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_NAMED = "_CHECKPOINT_METADATA names this item, which can't be restored without it"
_DESCRIBES = "arrays can't be restored without what describes them"
_UNCOMMITTED = (
    "the other parts of the save have one; on an object store Orbax treats a part without it as unfinished and "
    "deletes it"
)
_NEVER_COMMITTED = "other steps of the run have one, so this save was never committed, and Orbax skips it"
_STEP, _MOST_SIBLINGS = re.compile(r"(?:.*_)?\d{1,18}"), 100
_SHARDING = "_sharding"
_SPREAD = "a restore without an explicit sharding of the arrays fails without it"
MANIFEST, PARTS = "manifest.ocdbt", "ocdbt.process_"


def _steps_below(checkpoint: Checkpoint) -> list[str]:
    """The steps of a run, each of a single item."""
    items = item_folders(checkpoint)
    return items if set(items) == set(saves_among(items)) else []


_ITEM, _COMMIT = Sign.file(_ITEM_MARKER), Sign.file(_COMMITTED)
_MANIFESTS = Sign(lambda checkpoint: [f"{folder or '.'}/{MANIFEST}" for folder in item_folders(checkpoint)], most=2)
_RUN = Sign(_steps_below)


class Orbax(Layout):
    """`_CHECKPOINT_METADATA`, and for each item `_METADATA`, `manifest.ocdbt` and `d/`."""

    name = "orbax"
    title = "Orbax checkpoint"
    signatures = (
        Signature(must=(Sign.file(_STEP_MARKER),), may=(_ITEM, _COMMIT, _MANIFESTS)),
        Signature(must=(_ITEM,), may=(_COMMIT, _MANIFESTS), never=(_RUN,)),
        Signature(must=(_MANIFESTS,), may=(_COMMIT,), never=(_RUN,)),
    )

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """The marker, which is written when all else is; the items that it names; and what each can't be read without."""
        marker = "it is written when a save is finalised; without it Orbax treats the directory as unfinished"
        found = [Requirement((_STEP_MARKER, _COMMITTED), marker, commits=True, purposes=TO_RESUME_OR_LOAD)]
        folders = item_folders(checkpoint)
        for folder in folders:
            why = f"the item {folder or 'at the top'} can't be restored without it"
            tree = (f"{above(folder)}{_ITEM_MARKER}", f"{above(folder)}{aggregate.FILE}")
            found.append(Requirement(tree, why, purposes=TO_RESUME_OR_LOAD))
            found.append(Requirement((f"{above(folder)}{MANIFEST}",), why, purposes=TO_RESUME_OR_LOAD))
            found.append(
                Requirement((f"{above(folder)}d/*",), f"{why}: it holds the arrays", purposes=TO_RESUME_OR_LOAD)
            )
        items = named_items(checkpoint)
        named = sorted(items.keys() - folders)
        found += [Requirement((f"{name}/{items[name]}",), _NAMED, purposes=TO_RESUME_OR_LOAD) for name in named]
        found += [Requirement((path,), _DESCRIBES, purposes=TO_RESUME_OR_LOAD) for path in _of_zarr(checkpoint)]
        found += _shardings(checkpoint, {*folders, *zarr_folders(checkpoint)})
        return (*found, *_commits(checkpoint, {"", *folders, *named}), *_commit_of_siblings(checkpoint))

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """In a format that is not looked into."""
        raise FactUnavailable("Orbax keeps arrays in a format that is not read here")

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """Orbax keeps none."""
        raise FactUnavailable("Orbax keeps no configuration")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The step is the directory's name."""
        name = own_name(checkpoint)
        digits = name.rpartition("_")[2]
        return (Recorded("global_step", int(digits[:18]), ".", "the directory's name"),) if digits.isdecimal() else ()

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """By the name."""
        recorded = checkpoint.recorded
        if not recorded:
            raise FactUnavailable("the directory's name holds no step, and nothing else records it")
        step = int(str(recorded[0].value))
        plan = ResumePlan(from_update=step, unit="step", also=", by the directory's name")
        return Progress(global_step=step, plan=plan)


def above(folder: str) -> str:
    """What paths below a directory begin with."""
    return f"{folder}/" if folder else ""


def _commits(checkpoint: Checkpoint, folders: set[str]) -> list[Requirement]:
    """Where one part of a finished save says that it was committed, the others do as well."""
    paths = [f"{above(folder)}{_COMMITTED}" for folder in sorted(folders)]
    listing = checkpoint.listing
    if listing.get(_STEP_MARKER) is None or listing.has_file(_OF_V1) or not any(map(listing.has_file, paths)):
        return []
    return [Requirement((path,), _UNCOMMITTED, Severity.INFO, purposes=TO_RESUME_OR_LOAD) for path in paths]


def _commit_of_siblings(checkpoint: Checkpoint) -> Iterator[Requirement]:
    """Where other steps of the run say that they were committed, as on a store without renames, an unfinished one does not."""
    listing = checkpoint.listing
    others = (f"{name}/{_COMMITTED}" for name in islice(listing.siblings, _MOST_SIBLINGS) if _STEP.fullmatch(name))
    if not listing.files(_COMMITTED) and any(checkpoint.files.sibling(path) is not None for path in others):
        yield Requirement((_COMMITTED,), _NEVER_COMMITTED, commits=True, purposes=TO_RESUME_OR_LOAD)


def _shardings(checkpoint: Checkpoint, folders: set[str]) -> list[Requirement]:
    """Where an item's arrays were those of JAX, how they were spread over devices."""
    found = []
    for folder in sorted(folders):
        leaves = tree_of(checkpoint, folder).get("tree_metadata")
        values = [_of(leaf, "value_metadata") for leaf in leaves.values()] if isinstance(leaves, Mapping) else []
        if any(_of(value, "value_type") == "jax.Array" for value in values):
            found.append(
                Requirement((f"{above(folder)}{_SHARDING}",), _SPREAD, Severity.INFO, purposes=TO_RESUME_OR_LOAD)
            )
    return found


def _of(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def named_items(checkpoint: Checkpoint) -> dict[str, str]:
    """The items that the marker names, each with a directory of its own, and the file that must lie in it, as a glob."""
    values = checkpoint.files.json(_STEP_MARKER).value if checkpoint.listing.has_file(_STEP_MARKER) else None
    handlers = values.get("item_handlers") if isinstance(values, Mapping) else None
    named = handlers.items() if isinstance(handlers, Mapping) else ()
    return {
        name: JSON_ITEM if how.endswith(".JsonCheckpointHandler") else "*"
        for name, how in named
        if isinstance(how, str) and isinstance(name, str) and _NAME.fullmatch(name)
    }


def zarr_folders(checkpoint: Checkpoint) -> list[str]:
    """Directories of items that keep each array in a directory of its own; the names of arrays may hold slashes."""
    marked = {e.parent for e in checkpoint.listing.files(_ITEM_MARKER)}
    found = set()
    for entry in (*checkpoint.listing.files(".zarray"), *checkpoint.listing.files("zarr.json")):
        parts = entry.parent.split("/")
        folders = ["/".join(parts[:n]) for n in reversed(range(len(parts)))]
        found.add(next((folder for folder in folders if folder in marked), folders[0]))
    return sorted(found)


def _of_zarr(checkpoint: Checkpoint) -> list[str]:
    """What describes arrays in zarr: the metadata of their item, and one file for each array that those name."""
    found = set()
    for folder in zarr_folders(checkpoint):
        older = checkpoint.listing.has_file(f"{above(folder)}{aggregate.FILE}")
        if not older and not _is_one_array(checkpoint, folder):
            found.add(f"{above(folder)}{_ITEM_MARKER}")
        describes = "zarr.json" if tree_of(checkpoint, folder).get("use_zarr3") else ".zarray"
        found |= {f"{above(folder)}{name}/{describes}" for name in array_names(checkpoint, folder)}
    return sorted(found)


def _is_one_array(checkpoint: Checkpoint, folder: str) -> bool:
    """Whether it is what ArrayCheckpointHandler wrote before it described its array."""
    inside = {e.path.removeprefix(above(folder)).partition("/")[0] for e in checkpoint.listing.files(".zarray")}
    return inside == {"checkpoint"}


def tree_of(checkpoint: Checkpoint, folder: str) -> Mapping[str, object]:
    """What the metadata of an item say; empty where they can't be read."""
    path = f"{above(folder)}{_ITEM_MARKER}"
    values = checkpoint.files.json(path).value if checkpoint.listing.has_file(path) else None
    return values if isinstance(values, Mapping) else {}


def array_names(checkpoint: Checkpoint, folder: str) -> list[str]:
    """The arrays that the metadata of an item name, or the tree of one from before there were any, as their keys begin."""
    if not checkpoint.listing.has_file(f"{above(folder)}{_ITEM_MARKER}"):
        return aggregate.placeholders(checkpoint, f"{above(folder)}{aggregate.FILE}")
    leaves = tree_of(checkpoint, folder).get("tree_metadata")
    return [name for leaf in leaves.values() if (name := _array_name(leaf))] if isinstance(leaves, Mapping) else []


def _array_name(leaf: object) -> str | None:
    """The directory of one array of a tree; None where it is kept elsewhere."""
    value, keys = _of(leaf, "value_metadata"), _of(leaf, "key_metadata")
    if not isinstance(value, Mapping) or value.get("value_type") not in _ARRAYS or value.get("skip_deserialize"):
        return None
    parts = [_of(k, "key") for k in keys] if isinstance(keys, list) else []
    names = [p for p in parts if isinstance(p, str) and _NAME.fullmatch(p)]
    return ".".join(names) if names and len(names) == len(parts) else None


def item_folders(checkpoint: Checkpoint) -> list[str]:
    """Directories that hold arrays: those with a manifest, or with the parts of one that was never put together.

    The checkpoint itself may be one, else its directories are; what lies further down belongs to another checkpoint.
    """
    found = set()
    for entry in checkpoint.listing:
        top, _, rest = entry.path.rpartition("/")
        if "/" in top:
            continue
        if (rest == MANIFEST and not top.rpartition("/")[2].startswith(PARTS)) or rest.startswith(PARTS):
            found.add(top)
    return sorted(found)

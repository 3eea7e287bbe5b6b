"""The files of a checkpoint that a loader could unpickle, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from ckpt_rules import Checkpoint, Content, Entry, EntryKind, FactUnavailable, TorchFile, expected_format
from ckpt_rules_safety.distributed import object_files

_LOADABLE = frozenset({Content.ZIP, Content.PICKLE, Content.TAR, Content.NUMPY, Content.GZIP})
# Written by pickle, whose first two protocols begin with no mark of their own.
_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill", ".p"})
# Many torch files in a row, each found by an offset in the metadata, which is how `object_files` reads them.
_CONCATENATED = frozenset({".distcp"})


def pickled_files(checkpoint: Checkpoint) -> tuple[TorchFile, ...]:
    """Every file that is or may be a pickle, or holds one; those that can't be opened are another rule's business."""
    return checkpoint.fact(_pickled_files)


def _pickled_files(checkpoint: Checkpoint) -> tuple[TorchFile, ...]:
    return tuple(_found(checkpoint))


def _found(checkpoint: Checkpoint) -> Iterator[TorchFile]:
    for entry in checkpoint.listing.files():
        if entry.kind is EntryKind.FILE and _may_hold_a_pickle(checkpoint, entry):
            try:
                yield checkpoint.torch_file(entry.path)
            except FactUnavailable:
                continue
    yield from object_files(checkpoint)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether one of the globs fits a path, or its last part."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, glob) or fnmatchcase(name, glob) for glob in globs)


def is_torch_named(checkpoint: Checkpoint, path: str) -> bool:
    """Whether `weights/broken-torch-file` looks at a file as well."""
    return path in {entry.path for entry in checkpoint.files_in("torch")}


def _may_hold_a_pickle(checkpoint: Checkpoint, entry: Entry) -> bool:
    if entry.suffix in _CONCATENATED:
        return False
    head = checkpoint.head(entry.path)
    if head.error is not None or head.content is Content.EMPTY:
        return False
    if head.content in _LOADABLE:
        return True
    expected = expected_format(entry.name)
    named = (expected is not None and expected.name == "torch") or entry.suffix in _PICKLE_SUFFIXES
    return named and head.content in (Content.BINARY, Content.TEXT)

"""The files of a checkpoint that a loader could unpickle, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from ckpt_rules import (
    Checkpoint,
    Content,
    Entry,
    EntryKind,
    FactUnavailable,
    TorchFile,
    calls_something,
    expected_format,
    looks_loadable,
)
from ckpt_rules_safety.distributed import object_files

_LOADABLE = frozenset({Content.ZIP, Content.PICKLE, Content.TAR, Content.NUMPY, Content.GZIP})
# Written by pickle, whose first two protocols begin with no mark of their own.
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill", ".p")
# Opened by zipfile, which finds an archive behind whatever else a file begins with.
_ARCHIVE_SUFFIXES = frozenset({".zip", ".npz", ".keras", ".mar", ".pt2", ".skops"})
_PACKED_SUFFIXES = frozenset({".zst", ".zstd", ".lz4", ".lzo", ".snappy", ".sz", ".z"})
_TOLD = frozenset({"limit", "packed"})
# Many torch files in a row, each found by an offset in the metadata, which is how `object_files` reads them.
_CONCATENATED = frozenset({".distcp"})


def pickled_files(checkpoint: Checkpoint) -> tuple[TorchFile, ...]:
    """Every file that is or may be a pickle, or holds one; those that can't be opened are another rule's business."""
    return checkpoint.fact(_pickled_files)


def _pickled_files(checkpoint: Checkpoint) -> tuple[TorchFile, ...]:
    return tuple(_found(checkpoint))


def _found(checkpoint: Checkpoint) -> Iterator[TorchFile]:
    for entry in checkpoint.listing.files():
        if entry.kind is not EntryKind.FILE or entry.suffix in _CONCATENATED:
            continue
        try:
            if _may_hold_a_pickle(checkpoint, entry):
                yield checkpoint.files.torch_file(entry.path)
            elif file := _unmarked(checkpoint, entry):
                yield file
        except FactUnavailable:
            continue
    yield from object_files(checkpoint)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether one of the globs fits a path, or its last part."""
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, glob) or fnmatchcase(name, glob) for glob in globs)


def is_torch_named(checkpoint: Checkpoint, path: str) -> bool:
    """Whether `weights/broken-torch-file` looks at a file as well."""
    return path in {entry.path for entry in checkpoint.files.of_format("torch")}


def _may_hold_a_pickle(checkpoint: Checkpoint, entry: Entry) -> bool:
    head = checkpoint.files.sniff(entry.path)
    if head.error is not None or head.content is Content.EMPTY:
        return False
    if head.content in _LOADABLE:
        return True
    name = entry.name.rpartition(".")[0] if entry.suffix in _PACKED_SUFFIXES else entry.name
    expected = expected_format(name)
    named = (expected is not None and expected.name == "torch") or name.lower().endswith(_PICKLE_SUFFIXES)
    return named and head.content in (Content.BINARY, Content.TEXT)


def _unmarked(checkpoint: Checkpoint, entry: Entry) -> TorchFile | None:
    """A file that neither its name nor its first bytes call a pickle, and that calls something when it is unpickled."""
    head = checkpoint.files.sniff(entry.path)
    if head.error is not None:
        return None
    if entry.suffix not in _ARCHIVE_SUFFIXES and not looks_loadable(head.head, head.size):
        return None
    file = checkpoint.files.torch_file(entry.path)
    is_unseen = entry.suffix in _ARCHIVE_SUFFIXES and any(fault.code == "packed" for fault in file.problems)
    if not calls_something(file.globals) and not is_unseen:
        return None
    # What else is wrong with it as a pickle says nothing: it is meant to be something else.
    return replace(file, problems=tuple(fault for fault in file.problems if fault.code in _TOLD))

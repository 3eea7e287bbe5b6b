"""files/directory-in-place: a directory under the name of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from ckpt_rules import Checkpoint, Entry, EntryKind, Place, Problem, Reads, Rule, Severity, conventions
from ckpt_rules_files.loaded import LOGS

# Lightning's *.ckpt may be directories, and other names are a script's own.
_FILE = re.compile(
    r"(?:.*[-_.])?(?:optim|optimizers?|schedulers?|scaler|sampler|rng|rng_state|random_states?|states?|model|weights|config|args"
    r"|checkpoint|latest|last_checkpoint|meta)(?:[-_]\w[\w-]*)?\.(?:bin|pth?|pkl|json|safetensors|npz|txt)"
    r"|.*\.(?:distcp|safetensors)|(?:__\d+)?\.metadata|"
    + "|".join(map(re.escape, (*conventions.pointers.COMMON, conventions.pointers.DEEPSPEED_UNIVERSAL))),
)
_SUFFIX = re.compile(r".+\.(?:bin|pth?|pkl|json|npz|npy|ckpt)")
_WEIGHTS = frozenset({".bin", ".safetensors", ".pt", ".pth"})


class DirectoryInPlace(Rule):
    """There is a directory where a loader expects a file.

    ## What it checks
    Every directory that has the name of a checkpoint file: `optimizer.bin`, `scheduler.pt`, `model.safetensors`,
    `__0_0.distcp`, `.metadata`, `latest`. Directories with other names but the suffix of such files, if they are empty.
    A directory of weights, as `zero_to_fp32.py` creates under the name it is given, is a warning.

    ## Why it matters
    A failed `docker -v` or `kubectl cp`, an object store's folder marker, or a script that created a directory at a
    file's path instead of its parent. The name is there, so the listing looks right; the loader stops with
    IsADirectoryError, or treats the part as missing and starts it from scratch.

    ## How to repair
    Remove the directory, and copy the file from where the save was written, or resume from an earlier save.
    """

    id = "files/directory-in-place"
    tags = frozenset({"files", "load", "resume"})
    reads = Reads.LISTING

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each directory."""
        filled = {e.path[:at] for e in checkpoint.listing for at in _slashes(e.path)}
        exported = {e.parent for e in checkpoint.listing if e.kind is EntryKind.FILE and e.suffix in _WEIGHTS}
        for entry in checkpoint.listing:
            if entry.kind is EntryKind.DIRECTORY and _is_meant_as_file(entry, empty=entry.path not in filled):
                held = "an empty directory" if entry.path not in filled else "a directory"
                yield Problem(
                    message=f"{entry.path} is {held}, but should be a file",
                    place=Place(path=entry.path),
                    help="remove it, and copy the file from where the save was written, or resume from an earlier save",
                    severity=Severity.WARNING if entry.path in exported else None,
                )


def _slashes(path: str) -> Iterator[int]:
    return (at for at, character in enumerate(path) if character == "/")


def _is_meant_as_file(entry: Entry, *, empty: bool) -> bool:
    if any(fnmatchcase(entry.path, glob) for glob in LOGS):
        return False
    return bool(_FILE.fullmatch(entry.name)) or (empty and bool(_SUFFIX.fullmatch(entry.name)))

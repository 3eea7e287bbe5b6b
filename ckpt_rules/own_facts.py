"""The facts that a checkpoint has whatever its layout: what its path is, what lies there, what is missing, and what came before."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ckpt_rules import file_facts
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Listing, Root, RootKind

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.layout import Requirement

NO_DIRECTORY = "there is no checkpoint directory to look into"


def root(checkpoint: Checkpoint) -> Root:
    """What the checkpoint's path is."""
    return checkpoint.storage.root()


def listing(checkpoint: Checkpoint) -> Listing:
    """Every file and directory in it; FactUnavailable where the system does not give them."""
    root = checkpoint.root
    if root.kind is not RootKind.DIRECTORY:
        raise FactUnavailable(NO_DIRECTORY, path=".", blocked=True)
    try:
        return checkpoint.storage.list()
    except OSError as error:
        raise file_facts.refused(checkpoint, ".", error) from None


def unmet(checkpoint: Checkpoint) -> tuple[Requirement, ...]:
    """The requirements of its layout that no file meets."""
    paths = [entry.path for entry in checkpoint.listing]
    return tuple(
        needed
        for needed in checkpoint.requirements
        if not any(fnmatchcase(path, name) for path in paths for name in needed.names)
    )


def previous(checkpoint: Checkpoint) -> Checkpoint:
    """The save to compare it with, which is read as it is."""
    found = checkpoint.find_previous(checkpoint)
    found.reading = checkpoint.reading
    return found


def no_previous(_: Checkpoint) -> Checkpoint:
    """What `find_previous` is until somebody says better."""
    raise FactUnavailable("no earlier save was given to compare with")

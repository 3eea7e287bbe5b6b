"""Rules about the files of a checkpoint, whatever they contain."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `files/` family."""
    from ckpt_rules_files.changes import ChangedWhileRead
    from ckpt_rules_files.content import Empty, Placeholder, Unreadable, WrongFormat
    from ckpt_rules_files.copies import DuplicateFormat
    from ckpt_rules_files.directories import DirectoryInPlace
    from ckpt_rules_files.families import IncompleteFamily
    from ckpt_rules_files.mixtures import MixedArtifacts, SizeOutlier
    from ckpt_rules_files.pointers import DanglingPointer, StalePointer
    from ckpt_rules_files.presence import CommitMarker, MissingCheckpoint, MissingRequired, NotResumable
    from ckpt_rules_files.staging import StagingLeftover

    return [
        ChangedWhileRead,
        CommitMarker,
        DanglingPointer,
        DirectoryInPlace,
        DuplicateFormat,
        Empty,
        IncompleteFamily,
        MissingCheckpoint,
        MissingRequired,
        MixedArtifacts,
        NotResumable,
        Placeholder,
        SizeOutlier,
        StagingLeftover,
        StalePointer,
        Unreadable,
        WrongFormat,
    ]

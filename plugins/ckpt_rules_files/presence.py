"""Rules about what must be there: the checkpoint itself, and the files that a resume opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from ckpt_rules import (
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Place,
    Problem,
    Reads,
    Requirement,
    Root,
    RootKind,
    Rule,
    conventions,
    missing_requirements,
    saves_among,
)
from ckpt_rules_files.near_names import nearest_file

_SHOWN = 3
_CHECKPOINT_FILES = conventions.suffixes.WEIGHTS | {".metadata", ".pkl"}
# Trainers that load from the directory above their saves leave a pointer there.
_NAMES = conventions.pointers.COMMON | {conventions.pointers.TENSORFLOW, conventions.distributed.METADATA}


class MissingCheckpoint(Rule):
    """There is no checkpoint at the path that was given.

    ## What it checks
    That the path exists, that it is not a link to nowhere or to itself, that it is a file or a directory that can be
    listed, and that it holds files of its own. A directory without weights or state that contains directories named
    like saves is a run directory, not a checkpoint.

    ## Why it matters
    Many trainers silently start from scratch when the directory they should resume from does not exist. A typo then
    costs the whole run.

    ## How to repair
    Name the directory of one save. The finding lists similar directories nearby.
    """

    id = "files/missing-checkpoint"
    tags = frozenset({"files", "load", "resume"})
    reads = Reads.LISTING

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem at the most."""
        root = checkpoint.files.root
        near = _or(root.candidates)
        if root.link is not None:
            yield _lost(root)
        elif root.kind is RootKind.MISSING:
            yield Problem(message=f"'{root.path}' does not exist", help=near and f"did you mean {near}?")
        elif root.kind is RootKind.UNREADABLE:
            yield Problem(
                message=f"'{root.path}' can't be listed: {root.error}", help="grant read permission, or check the mount"
            )
        elif root.kind is RootKind.OTHER:
            yield Problem(message=f"'{root.path}' is not a directory", help="name the directory that the save wrote")
        else:
            yield from self._hollow(checkpoint)

    def _hollow(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        listing = checkpoint.listing
        if not listing.entries:
            yield Problem(
                message=f"'{checkpoint.path}' is empty", help="resume from an earlier save; this one was never written"
            )
            return
        top = [e for e in listing if "/" not in e.path]
        saves = saves_among(e.path for e in top if e.kind is EntryKind.DIRECTORY)
        own = any(e.suffix in _CHECKPOINT_FILES or e.name in _NAMES for e in top if e.kind is not EntryKind.DIRECTORY)
        if saves and not own and checkpoint.match is None:
            newest = saves[-_SHOWN:]
            yield Problem(
                message=f"'{checkpoint.path}' contains {len(saves):,} checkpoint{'' if len(saves) == 1 else 's'} but is not a checkpoint",
                help=f"verify one of them, such as {_or(f'{checkpoint.path}/{s}' for s in reversed(newest))}",
                data={"checkpoints": newest},
            )


def _lost(root: Root) -> Problem:
    """A link that leads nowhere."""
    circle = root.kind is RootKind.UNREADABLE
    leads = f"can't be followed: {root.error}" if circle else "is not there"
    return Problem(
        message=f"'{root.path}' is a link to '{root.link}', which {leads}",
        help="remove the link, point it to the newest save, or resume from that save by its own name",
        data={"link": root.link},
    )


class MissingRequired(Rule):
    """A file that this layout can't resume without is missing.

    ## What it checks
    Every file that the recognised layout requires for the `purpose` exists, under one of the names that its trainer
    reads. A file that exists but is damaged is reported by the rule for that damage. If training is to be resumed, a
    missing file that commits the save is reported by `files/commit-marker`.

    ## Why it matters
    The save was interrupted, a copy missed something, or the directory was exported for inference. The trainer stops,
    or worse, starts that part from scratch.

    ## How to repair
    Copy the file from where the save was written, or resume from an earlier save that has it.
    """

    id = "files/missing-required"
    tags = frozenset({"files", "load", "resume"})

    purpose: Literal["resume", "load"] = Field(
        default="resume", description="What the files are needed for: to resume training, or to load the weights."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each requirement that no file meets."""
        unmet = [
            n
            for n in missing_requirements(checkpoint)
            if self.purpose in n.purposes and not (n.commits and self.purpose == "resume")
        ]
        yield from _missing(
            checkpoint, unmet, "copy it from where the save was written, or resume from an earlier save"
        )


class NotResumable(Rule):
    """The directory is not a save: it never had a training state, so training can't be resumed from it.

    ## What it checks
    Whether the recognised layout is that of a final model: an adapter or a model written by `save_pretrained`, a
    pipeline, exported weights. A save that lost its training state is reported by `files/missing-required`.

    ## Why it matters
    A trainer that is told to resume from it stops; one that loads whatever it finds starts at the first step with a
    fresh optimizer.

    ## How to repair
    Resume from a checkpoint of the run, which is usually next to this directory or inside it. To load the weights,
    verify with the ruleset `inference`; to train further, start a new run from them.
    """

    id = "files/not-resumable"
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem at the most."""
        if why := checkpoint.layout.nothing_to_resume(checkpoint):
            yield Problem(
                message=f"{why}, so training can't be resumed from it",
                help="resume from a checkpoint of its run; to load the weights, verify with the ruleset inference; "
                "to train further, start a new run from them",
            )


class CommitMarker(Rule):
    """The file that a trainer writes last, to mark a save as complete, is missing.

    ## What it checks
    For layouts whose trainer finishes a save with a specific file (`trainer_state.json`, `.metadata`, `metadata.json`,
    `commit_success.txt`): that file exists.

    ## Why it matters
    The save was interrupted, and any other file may be missing or from an earlier save. A copy that skips names with a
    leading dot looks the same.

    ## How to repair
    Resume from an earlier save. If you know that the save finished, copy the file from where it was written.
    """

    id = "files/commit-marker"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each marker that is missing."""
        if not any(needed.commits for needed in checkpoint.requirements):
            raise FactUnavailable(f"the layout {checkpoint.layout.name} has no file that commits a save")
        unmet = [needed for needed in missing_requirements(checkpoint) if needed.commits]
        yield from _missing(
            checkpoint, unmet, "resume from an earlier save, or copy it from where the save was written"
        )


def _missing(checkpoint: Checkpoint, unmet: Sequence[Requirement], help_: str) -> Iterator[Problem]:
    """One problem for each; FactUnavailable, blocked, where the rest may lie on another node's disk."""
    all_names = {name for needed in checkpoint.requirements for name in needed.names}
    for needed in unmet:
        if needed.elsewhere is None:
            found = nearest_file(checkpoint, needed.names, all_names - set(needed.names))
            yield _problem(needed, help_, found)
    for needed in unmet:
        if needed.elsewhere is not None:
            raise FactUnavailable(needed.elsewhere, path=needed.names[0], blocked=True)


def _problem(needed: Requirement, help_: str, found: str | None) -> Problem:
    others = f" (or {', '.join(needed.names[1:])})" if len(needed.names) > 1 else ""
    meant = f"{found} may be that file: rename it to {needed.names[0]} if it is complete; otherwise " if found else ""
    return Problem(
        message=f"{needed.names[0]}{others} is missing: {needed.why}",
        place=Place(path=needed.names[0]),
        help=meant + help_,
        severity=needed.severity,
        data={"names": list(needed.names)} | ({"near": found} if found else {}),
    )


def _or(paths: object) -> str:
    return " or ".join(f"'{p}'" for p in list(paths)[:_SHOWN])  # type: ignore[call-overload]

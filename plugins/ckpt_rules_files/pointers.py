"""files/dangling-pointer and files/stale-pointer: files that name a save."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Pointer, Problem, Rule, Severity


class DanglingPointer(Rule):
    """A pointer file names a save that does not exist.

    ## What it checks
    Every file by which the layout's trainer finds a save (`latest`, `last_checkpoint`,
    `latest_checkpointed_iteration.txt`), in the checkpoint and beside it, and every entry of its state that names one:
    the named save exists. The pointer itself must be readable: a regular file with UTF-8 text no longer than a file
    name. If the trainer starts from scratch without such a file, a missing one is a warning. A path that is out of date
    because the whole run was moved is accepted if its last part exists.

    ## Why it matters
    The trainer does not find the save. Many then silently start from scratch.

    ## How to repair
    Write the name of the newest complete save into the file, or name the save on the command line of the run.
    """

    id = "files/dangling-pointer"
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each dangling pointer."""
        for pointer in _pointers(checkpoint):
            if not pointer.exists and pointer.severity is not None:
                what = (
                    f"names '{pointer.target}', which does not exist"
                    if pointer.target
                    else _nothing(checkpoint, pointer)
                )
                yield Problem(
                    message=f"{_name(pointer)} {what}: {pointer.why}",
                    place=Place(path=pointer.path, key=pointer.key),
                    help="write the name of the newest complete save into it, or name the save when the run is started",
                    severity=pointer.severity,
                    data={"target": pointer.target},
                )


class StalePointer(Rule):
    """A pointer file names a save that is older than the newest complete one.

    ## What it checks
    Every file by which the layout's trainer finds a save: there is no newer complete save next to the one that it
    names.

    ## Why it matters
    The save finished but the pointer was not updated, or it came from a backup. A resume repeats everything trained
    since.

    ## How to repair
    Write the name of the newest complete save into the file, unless you want the older one.
    """

    id = "files/stale-pointer"
    severity = Severity.WARNING
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each stale pointer."""
        for pointer in _pointers(checkpoint):
            if pointer.exists and pointer.newer:
                yield Problem(
                    message=f"{_name(pointer)} names '{pointer.target}', but '{pointer.newer}' is newer and complete",
                    place=Place(path=pointer.path, key=pointer.key),
                    help=f"write '{pointer.newer}' into it, unless you want the older save",
                    data={"target": pointer.target, "newer": pointer.newer},
                )


def _pointers(checkpoint: Checkpoint) -> tuple[Pointer, ...]:
    pointers = checkpoint.pointers
    if not pointers:
        raise FactUnavailable("no file here names a save")
    return pointers


def _nothing(checkpoint: Checkpoint, pointer: Pointer) -> str:
    """What is wrong with a pointer that names nothing."""
    if pointer.fault:
        return f"does not name a save: {pointer.fault}"
    beside = pointer.path.startswith("../")
    there = checkpoint.files.sibling(pointer.path[3:]) if beside else checkpoint.listing.get(pointer.path)
    return "names nothing" if there else "is missing"


def _name(pointer: Pointer) -> str:
    return f"'{pointer.key}' in {pointer.path}" if pointer.key else pointer.path

"""Files that changed during the check."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Entry, EntryKind, Place, Problem, Reads, Rule, Severity
from ckpt_rules_files.loaded import is_loaded


class ChangedWhileRead(Rule):
    """A file changed while the checkpoint was read.

    ## What it checks
    Size and modification time of every file that a loader reads: once when the directory is listed, and again after all
    other rules have run. Logs are ignored. A file replaced by another of the same size and modification time goes
    unnoticed.

    ## Why it matters
    Something is still writing: an unfinished save, a copy in progress, a clean-up of old saves. What was read is a mix
    of old and new, and every other result here may be wrong a minute later.

    ## How to repair
    Verify again when the writer has finished. A training loop that verifies its own save does so after the last rank has
    written.
    """

    id = "files/changed-while-read"
    severity = Severity.WARNING
    tags = frozenset({"files", "resume"})
    reads = Reads.LISTING
    last = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each file that is not what it was."""
        for entry in checkpoint.listing.files():
            if is_loaded(entry) and (change := _change(entry, now := checkpoint.files.stat_now(entry.path))):
                yield Problem(
                    message=f"{change} while the checkpoint was read",
                    place=Place(path=entry.path),
                    help="verify again when the writer has finished",
                    data=_data(entry, now),
                )


def _change(was: Entry, now: Entry | None) -> str | None:
    if now is None:
        return "the file was removed"
    if now.kind is EntryKind.UNREADABLE:
        return f"the file became unreadable ({now.error})"
    if now.kind is not EntryKind.FILE:
        return f"the file became a {now.kind.value}"
    if now.size != was.size:
        return f"the file {'grew' if now.size > was.size else 'shrank'} from {was.size:,} to {now.size:,} bytes"
    if now.mtime_ns != was.mtime_ns:
        return f"the file was written again, {now.size:,} bytes as before,"
    return None


def _data(was: Entry, now: Entry | None) -> dict[str, int]:
    data = {"nbytes": was.size, "mtime_ns": was.mtime_ns}
    return data if now is None else data | {"nbytes_now": now.size, "mtime_ns_now": now.mtime_ns}

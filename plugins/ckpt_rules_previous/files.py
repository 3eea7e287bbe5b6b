"""previous/smaller: files that shrank, or that are no longer there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity, is_bookkeeping
from ckpt_rules_previous.saves import called


class Smaller(Rule):
    """Files are much smaller than in the previous save, or missing.

    ## What it checks
    The total size of each kind of file (files whose names differ only in numbers, such as `model-#-of-#.safetensors` or
    `__#_#.distcp`) that made up at least a twentieth of the previous save: that it has not shrunk to less than `share`.
    For a checkpoint that is one file, the size of that file.

    ## Why it matters
    All saves of a run have about the same size. One that is much smaller lacks something: the optimizer was not
    gathered, an upload stopped, or only the weights were saved.

    ## How to repair
    Compare the two (`ckpt-rules diff`), and resume from the previous save if something is missing.
    """

    id = "previous/smaller"
    tags = frozenset({"previous", "resume"})
    severity = Severity.WARNING
    compares = True

    share: float = Field(
        default=0.5, gt=0, lt=1, description="Files must keep at least this share of their earlier size in bytes."
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each kind of file."""
        name = called(checkpoint.previous)
        before, after = _kinds(checkpoint.previous), _kinds(checkpoint)
        total = sum(before.values())
        for kind, nbytes in before.items():
            if nbytes * _RELEVANT >= total and after[kind] < self.share * nbytes:
                yield Problem(
                    message=f"{_said(kind, after)}; it had {nbytes:,} bytes in the previous save, {name}",
                    place=Place(path=_first(checkpoint, kind) or kind),
                    help=f"see `ckpt-rules diff`; resume from {name} if something is missing here",
                    data={"kind": kind, "before": nbytes, "after": after[kind], "previous": name},
                )


_RELEVANT = 20
_NUMBER = re.compile(r"[0-9a-f]{16,}|\d+")
"""A number in a name, or a digest by which Orbax and others name what they store."""

_ALL = "the file"


def _kinds(checkpoint: Checkpoint) -> Counter[str]:
    """The bytes of the files of each kind, but those that git and the hub's client keep."""
    found: Counter[str] = Counter()
    for entry in checkpoint.listing.files():
        if not is_bookkeeping(entry.path):
            found[_ALL if checkpoint.files.is_one_file else kind_of(entry.path)] += entry.size
    return found


def kind_of(path: str) -> str:
    """A path without the numbers in it."""
    return _NUMBER.sub("#", path)


def _first(checkpoint: Checkpoint, kind: str) -> str | None:
    files = checkpoint.listing.files()
    return next((e.path for e in files if kind in (_ALL, kind_of(e.path))), None)


def _said(kind: str, after: Counter[str]) -> str:
    return f"{kind} has {after[kind]:,} bytes" if kind in after else f"{kind} is gone"

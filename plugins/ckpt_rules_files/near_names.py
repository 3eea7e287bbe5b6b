"""Files that may be one that is missing, under nearly its name: left by an interrupted save, a browser or a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from ckpt_rules import Checkpoint, EntryKind, conventions, is_bookkeeping

_ADDED = re.compile(
    rf"(?: ?\(\d{{1,3}}\)| - copy|[-_ ]copy|\.(?:{'|'.join(conventions.saves.TEMPORARY)}|download|crdownload|bak|backup|old|orig|save|done)"
    r"|~|\.[0-9a-f]{6,16})+(?=\.|$)"
)
_BEFORE = re.compile(r"^(?:copy of |tmp[-_.]|temp[-_.]|\.)+")
_DIGITS = re.compile(r"\d+")
_ALIKE = 0.88
_MOST = 2_000
"""Files that are looked at."""


def nearest_file(checkpoint: Checkpoint, names: Sequence[str], others: Iterable[str]) -> str | None:
    """The file whose name is nearest to one of `names`, the first of which counts most; None where none is near.

    others: names that mean something else, such as those of other files that are needed
    """
    taken = set(others)
    for name in names:
        folder = name.rpartition("/")[0]
        files = [
            e.path
            for e in checkpoint.listing.entries[:_MOST]
            if e.kind is EntryKind.FILE
            and e.size
            and e.parent == folder
            and e.path not in taken
            and not is_bookkeeping(e.path)
        ]
        scored = [(_likeness(name.rpartition("/")[2], path.rpartition("/")[2]), path) for path in files]
        if (best := max(scored, default=(0.0, ""))) and best[0] >= _ALIKE:
            return best[1]
    return None


def _likeness(name: str, other: str) -> float:
    """1 for the same name but for what is added to it; less for a misspelling; 0 for another number."""
    bare = _BEFORE.sub("", _ADDED.sub("", other.lower()))
    if bare == name.lower():
        return 1.0
    if _DIGITS.findall(bare) != _DIGITS.findall(name):
        return 0.0
    stem, _, suffix = name.lower().rpartition(".")
    other_stem, _, other_suffix = bare.rpartition(".")
    if stem == other_stem:
        return 0.95 if {suffix, other_suffix} <= _TORCH else 0.0
    return SequenceMatcher(None, name.lower(), bare).ratio() if suffix == other_suffix else 0.0


_TORCH = frozenset({"bin", "ckpt", "pkl", "pt", "pth"})

"""previous/lacks-file: a file that all other saves of the run have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    is_bookkeeping,
    missing_requirements,
    sibling,
    siblings,
)
from ckpt_rules_previous.files import kind_of
from ckpt_rules_previous.saves import listed, maybe

_NEAREST = 2
_LEAST = 2
_LOGS = (
    "*.log", "*.txt", "*.md", "events.out.tfevents*", "*.csv", "*.tsv", "*.jsonl", "*.yaml", "*.yml", "*.html", "*.pdf",
    "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.mp4", "*.wav", "*eval*", "*metric*", "*result*", "*predict*", "*sample*",
)  # fmt: skip
_TOLD = ("*rng_state*", "*random_states*")
"""Random-number states, of which `rng/missing` and `ranks/missing-file` tell."""

_RANKS = re.compile(r"(?:[-_.]?(?:dp)?(?:rank)?[-_]?#)+(?:-of-#)?(?=\.)")
_KEPT = 100


class LacksFile(Rule):
    """A file is missing that all neighbouring saves have.

    ## What it checks
    The kinds of files (files whose names differ only in numbers or ranks are of one kind) in the nearest saves: the two
    before this one and the two after it, at least two in total. Kinds that all of them have and this one lacks are
    reported, except for logs, notes, names that begin with a dot, evaluation results, random-number states, weights if
    this save has any, files that the layout itself requires, and files that no resume reads. A save that has at least
    as many extra kinds as missing ones has a different form and is not compared.

    ## Why it matters
    Trainers tolerate the loss of many files without which training continues differently: the loss scaler, the sampler
    state, a moving average, the random-number states of all ranks. A save that lacks what the others have is often an
    unfinished copy.

    ## How to repair
    Copy the file from where the save was written, or resume from a save that has it.
    """

    id = "previous/lacks-file"
    severity = Severity.WARNING
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for all kinds."""
        if checkpoint.files.is_one_file:
            raise FactUnavailable("the checkpoint is one file")
        names, kinds, weights = [], [], set[str]()
        for name, found in _nearest(checkpoint):
            names.append(name)
            kinds.append(_kinds(found))
            weights |= _weights(found)
        if len(names) < _LEAST:
            raise FactUnavailable("there are fewer than two other saves of its run in the same directory")
        own = set(_kinds(checkpoint))
        everywhere = set(kinds[0]).intersection(*kinds[1:])
        if _weights(checkpoint):
            everywhere -= {_kind(path) for path in weights}  # other shards, or another format
        missing = {kind: kinds[0][kind] for kind in sorted(everywhere - own)}
        if not missing or len(own - set().union(*kinds)) >= len(missing):
            return
        # A save without what its layout requires is reported for that; such as one with the model alone among full ones.
        if any(needed.severity is Severity.ERROR for needed in missing_requirements(checkpoint)):
            return
        elsewhere = [*_TOLD, *(pattern for needed in missing_requirements(checkpoint) for pattern in needed.names)]
        lacking = [path for path in missing.values() if not any(fnmatchcase(path, pattern) for pattern in elsewhere)]
        if lacking:
            yield Problem(
                message=f"it has no {listed(lacking)}, but all {len(names):,} neighbouring saves do "
                f"({', '.join(names)})",
                place=Place(path=lacking[0]),
                help="copy it from where the save was written, or resume from a save that has it",
                data={"lacking": lacking[:_KEPT], "others": names},
            )


def _nearest(checkpoint: Checkpoint) -> Iterator[tuple[str, Checkpoint]]:
    beside = checkpoint.fact(siblings)
    for name in (*beside.before[:_NEAREST], *beside.after[:_NEAREST]):
        try:
            yield name, checkpoint.fact(sibling, name)
        except FactUnavailable:
            continue  # of another layout, or damaged


def _weights(checkpoint: Checkpoint) -> set[str]:
    """The files of weights, and those that describe them."""
    weights = maybe(lambda: checkpoint.weights)
    paths = {file.path for file in weights.files} if weights else set()
    return paths | {e.path for e in checkpoint.listing.files() if paths and e.path.endswith(".index.json")}


def _kind(path: str) -> str:
    return _RANKS.sub("", kind_of(path))


def _kinds(checkpoint: Checkpoint) -> dict[str, str]:
    """Each kind of file that a resume may read, and the first path of the kind."""
    found: dict[str, str] = {}
    passed_over = (*_LOGS, *checkpoint.layout.unread)
    for entry in checkpoint.listing.files():
        hidden = any(part.startswith(".") and part != ".metadata" for part in entry.path.split("/"))
        if not hidden and not is_bookkeeping(entry.path) and not any(fnmatchcase(entry.name, p) for p in passed_over):
            found.setdefault(_kind(entry.path), entry.path)
    return found

"""Exported weights that lie among the saves of a run: they are named like saves, and no training state was ever in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_rules.conventions.saves import TAKEN
from ckpt_rules.conventions.state_files import ARGUMENTS
from ckpt_rules.conventions.suffixes import SAVED
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.files import Listing, RootKind
from ckpt_rules.understanding import not_understood

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

_NUMBER = re.compile(r"[0-9a-f]{16,}|\d+")
_MOST = 40
"""Kinds of directories that are looked into."""

_LOOKED_INTO = 3
"""Saves of a run, the newest, that tell what the others are."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Directories whose names differ in numbers only, and whose files do."""

    form: str
    files: frozenset[str]


def runs_of_exports(runs: Mapping[str, Sequence[str]], opened: Callable[[str], Checkpoint]) -> set[str]:
    """The directories in which all saves are weights alone, where others nearby hold saves with a training state.

    A run that has lost the states of all its saves looks alike: such a directory's names are of another form, or its files say
    that a model was exported.
    """
    newest = {run: [opened(path) for path in saves[-_LOOKED_INTO:]] for run, saves in runs.items()}
    alone = {run for run, saves in newest.items() if all(_weights_alone(save) is not None for save in saves)}
    whole = [
        save for run in newest if run not in alone for save in newest[run] if not_understood(save, "resume") is None
    ]
    forms = {_form(os.path.basename(save.path)) for save in whole}
    return {run for run in alone if whole and all(_is_marked(save, forms) for save in newest[run])}


def _is_marked(checkpoint: Checkpoint, forms: set[str]) -> bool:
    name = os.path.basename(checkpoint.path)
    return _form(name) not in forms or checkpoint.layout.nothing_to_resume(checkpoint) is not None


def exported_files(names: Sequence[str], opened: Callable[[str], Checkpoint]) -> set[str]:
    """The same of names of files that are each a save, but those that stand for the newest."""
    return exports_among([name for name in names if not TAKEN.fullmatch(name)], Listing(()), opened)


def exports_among(
    names: Sequence[str], listing: Listing, opened: Callable[[str], Checkpoint], *, beside: bool = False
) -> set[str]:
    """Those of the names that hold weights alone, and that no trainer would take for a save of this run.

    They differ in name from the saves that hold a training state, or in what their weights are called where a pointer says
    which the saves are. Weights alone under the name of a save are a save that lost its state, and are not among them.

    names:  of directories that are named like saves, as `listing` has them
    opened: the checkpoint in one of them
    beside: whether whole saves, which are files, lie beside them
    """
    kinds = _kinds(names, listing)
    if listing.truncated or len(kinds) > _MOST or (len(kinds) == 1 and not beside):
        return set()
    found = {kind: opened(members[-1]) for kind, members in kinds.items()}
    alone = {kind: weights for kind, one in found.items() if (weights := _weights_alone(one)) is not None}
    whole = {kind: one for kind, one in found.items() if kind not in alone and is_whole(one)}
    if not whole and not beside:
        return set()
    return {
        name
        for kind, weights in alone.items()
        for name in kinds[kind]
        if _is_export(name, kind, {_form(w) for w in weights}, found[kind], whole)
    }


def is_whole(checkpoint: Checkpoint) -> bool:
    """Whether a training state was found in it."""
    return checkpoint.files.root.kind is RootKind.DIRECTORY and not_understood(checkpoint, "resume") is None


def _kinds(names: Iterable[str], listing: Listing) -> dict[_Kind, list[str]]:
    files: dict[str, set[str]] = {name: set() for name in names}
    for entry in listing:
        top, slash, below = entry.path.partition("/")
        if slash and top in files:
            files[top].add(_form(below))
    kinds: dict[_Kind, list[str]] = {}
    for name, inside in files.items():
        kinds.setdefault(_Kind(_form(name), frozenset(inside)), []).append(name)
    return kinds


def _form(name: str) -> str:
    return _NUMBER.sub("#", name)


def _is_export(
    name: str, kind: _Kind, weights: set[str], checkpoint: Checkpoint, whole: Mapping[_Kind, Checkpoint]
) -> bool:
    other = not any(weights & save.files for save in whole)
    if kind.form not in {save.form for save in whole}:
        derived = any(kind.form.startswith(save.form) for save in whole)
        return derived or other or checkpoint.layout.nothing_to_resume(checkpoint) is not None
    targets = [target for save in whole.values() for target in _pointed(save)]
    return other and bool(targets) and name not in targets


def _pointed(checkpoint: Checkpoint) -> list[str]:
    """What the pointers beside a save name."""
    try:
        return [p.target for p in checkpoint.pointers if p.path.startswith("../") and p.target]
    except FactUnavailable:
        return []


def _weights_alone(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """The files of weights, where there are such and nothing that a training state may lie in; else None."""
    if not_understood(checkpoint, "resume") is None:
        return None
    try:
        weights = checkpoint.weights
        listing = checkpoint.listing
    except FactUnavailable:
        return None
    files = (*weights.files, *weights.unindexed, *(f for each in weights.alternatives for f in each))
    paths = {file.path for file in files}
    state = {e.path for e in listing.files() if e.name.endswith(tuple(SAVED)) and e.name != ARGUMENTS}
    return tuple(sorted(paths)) if paths and state <= paths else None

"""Which files of a checkpoint are handed to which loader, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ckpt_rules import Checkpoint, FactUnavailable
from ckpt_rules_load.running import Answer, File, LoadLimits, load_all
from ckpt_rules_load.words import refuses_a_global
from ckpt_rules_safety.public import files_of_a_resume, refused_by_default

TORCH, SAFETENSORS = "torch.load", "safe_open"

_LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Left:
    """A file that its loader was not asked about.

    why:     as the end of a sentence that begins with its path
    blocked: whether a rule should have been able to ask
    """

    path: str
    why: str
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader said to each file it was given, and the files that it was not."""

    answers: tuple[Answer, ...]
    left: tuple[Left, ...]


def loaded_by_torch(checkpoint: Checkpoint, limits: LoadLimits) -> Loaded:
    """`torch.load(weights_only=True)` of the files that a resume reads with it; FactUnavailable where there are none, or no torch."""
    given: list[str] = []
    left: list[Left] = []
    for path in files_of_a_resume(checkpoint):
        reason = _kept_back(checkpoint, path)
        if reason is None:
            given.append(path)
        else:
            left.append(reason)
    loaded = _load(checkpoint, TORCH, given, limits)
    unknown = [a for a in loaded.answers if a.error and refuses_a_global(a.error)]
    left += (Left(a.path, "imports globals that this torch refuses") for a in unknown)
    return Loaded(tuple(a for a in loaded.answers if a not in unknown), (*left, *loaded.left))


def loaded_by_safetensors(checkpoint: Checkpoint, limits: LoadLimits) -> Loaded:
    """`safetensors.safe_open` of the weights; FactUnavailable where there are none, or no safetensors."""
    paths: list[str] = []
    try:
        paths += (f.path for f in checkpoint.weights.files if f.format == "safetensors")
    except FactUnavailable as absent:
        if absent.path is None:
            raise
        paths.append(absent.path)  # the only file of weights, too damaged to tell what it holds
    readable = {entry.path for entry in checkpoint.files.of_format("safetensors")}
    given = [path for path in dict.fromkeys(paths) if path in readable]
    if not given:
        raise FactUnavailable("the weights are in no safetensors file that can be opened")
    return _load(checkpoint, SAFETENSORS, given, limits)


def _kept_back(checkpoint: Checkpoint, path: str) -> Left | None:
    """Why a torch file is not handed over; None where our own reader saw it to the end, or to its damage, and found no harm."""
    try:
        file = checkpoint.files.torch_file(path)
    except FactUnavailable as absent:
        return Left(path, f"could not be checked before loading ({absent.reason})", blocked=True)
    limit = next((p for p in file.problems if p.code == _LIMIT), None)
    if limit:
        return Left(path, f"exceeds a limit of the check before loading ({limit.message})", blocked=True)
    if refused_by_default(file):
        return Left(path, "is refused by torch.load by default (state/needs-unsafe-load)")
    return None


def _load(checkpoint: Checkpoint, loader: str, paths: Iterable[str], limits: LoadLimits) -> Loaded:
    top = os.path.abspath(checkpoint.path)
    files = []
    for path in paths:
        entry = checkpoint.listing.get(path)
        full = top if checkpoint.files.is_one_file else os.path.join(top, path)
        files.append(File(path, full, entry.size if entry else 0))
    answers = load_all(loader, files, limits)
    why = f"was not tried, for {len(answers.found):,} files before it had killed the loader time and again"
    return Loaded(answers.found, tuple(Left(path, why, blocked=True) for path in answers.untried))

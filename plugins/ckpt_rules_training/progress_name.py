"""progress/name-mismatch: the step or epoch in the checkpoint's name against the one inside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Progress, Rule, Severity, is_count
from ckpt_rules_training.maybe import updates_of
from ckpt_rules_training.words import listed

_NUMBER = r"[-_=. ]?0*(?P<number>\d{1,12})(?![\d.]*[a-z]|[-_.]?\d)"
_STEP = re.compile(rf"(?<![a-z])(?:global[-_]?steps?|steps?|iters?|iterations?|updates?){_NUMBER}", re.IGNORECASE)
_EPOCH = re.compile(rf"(?<![a-z])epochs?{_NUMBER}", re.IGNORECASE)
_EITHER = re.compile(rf"^(?:checkpoint|ckpt|chkpt|checkpt|state|training_state|train_state){_NUMBER}", re.IGNORECASE)
_LEAST = 100
_DATE = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])([0-2]\d|3[01])(\d{4}|\d{6})?")


class NameMismatch(Rule):
    """The name of the directory or of the state file gives a different step or epoch than the checkpoint's contents.

    ## What it checks
    Numbers in names such as `step-500`, `checkpoint-500`, `iter_0000500`, `epoch_3` and `epoch=3-step=500` against
    every counter that could be meant: the global step, the batches and optimizer updates so far, the step within the
    epoch; and for epochs the recorded one, the one before and the one after, because names often count from 0. Other
    numbers (`run-2024`, `llama-7b`, `v2`, dates, and `checkpoint-7`, which may count saves) are left alone.

    ## Why it matters
    Scripts that resume from "the latest" choose by the number in the name. A directory that was copied, renamed or
    overwritten by another save sends them to the wrong point of training, and rotation deletes the wrong one.

    ## How to repair
    Rename the directory to match its contents, or find the save that the name refers to.
    """

    id = "progress/name-mismatch"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each number."""
        progress = checkpoint.progress
        epochs, steps = _epochs(checkpoint, progress), _steps(checkpoint, progress)
        directory = os.path.basename(os.path.abspath(checkpoint.path))
        file = checkpoint.state.path
        named = {directory: ".", file: file}
        if checkpoint.layout.numbered_by_save and _EITHER.search(directory):
            del named[directory]
        for name, path in named.items():
            yield from _mismatches(name, path, epochs, steps)


def _mismatches(name: str, path: str, epochs: list[int], steps: list[int]) -> Iterator[Problem]:
    stem = re.sub(r"(\.(pth|pt|bin|ckpt|tar|json))+$", "", name)
    said = [("step", int(m["number"]), steps, 1) for m in _STEP.finditer(stem)]
    said += [("epoch", int(m["number"]), epochs, 1) for m in _EPOCH.finditer(stem)]
    either = _EITHER.search(stem)
    # Small numbers may count saves.
    if either and not said and steps and int(either["number"]) >= _LEAST and not _DATE.fullmatch(either["number"]):
        said.append(("step or epoch", int(either["number"]), [*steps, *epochs], 1))
    for what, number, candidates, slack in said:
        if candidates and all(abs(number - c) > slack for c in candidates):
            yield _problem(name, path, what, number, candidates)


def _problem(name: str, path: str, what: str, number: int, candidates: list[int]) -> Problem:
    found = listed(f"{c:,}" for c in sorted(set(candidates)))
    return Problem(
        message=f"'{name}' says {what} {number:,}, but the counters inside say {found}",
        place=Place(path=path),
        help="rename it to match its contents, or find the save that the name refers to",
        data={"name": name, "named": number, "recorded": sorted(set(candidates))},
    )


def _epochs(checkpoint: Checkpoint, progress: Progress) -> list[int]:
    """The epoch as it is written, and as it was read."""
    written = [int(r.value) for r in checkpoint.recorded if r.name == "epoch" and is_count(r.value)]
    return written if progress.epoch is None else [*written, progress.epoch]


def _steps(checkpoint: Checkpoint, progress: Progress) -> list[int]:
    """Every number that a step in a name could mean."""
    written = [int(r.value) for r in checkpoint.recorded if r.name == "global_step" and is_count(r.value)]
    found = [*written, progress.global_step, progress.batches_done, progress.expected_updates, updates_of(checkpoint)]
    if any(f is not None for f in found) and progress.step:
        found.append(progress.step)
    return [f for f in found if f is not None]

"""state/missing-field and state/misspelled-field: what the training state's convention lets one expect in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Field, Place, Problem, Rule, Severity, TrainingState, misspelling_of
from ckpt_rules_training.words import shown

_PARTS = frozenset({"optimizer", "scheduler", "scaler", "rng"})
_NEEDED = frozenset({Severity.ERROR, Severity.WARNING})


class MissingField(Rule):
    """The training state lacks a field that resuming needs.

    ## What it checks
    Each layout says which fields its training state should have. In the plain layout those are `epoch` and `step`
    (errors) and `total_batches` (a warning) if the convention of `training_state.pth` is followed, otherwise at least
    one counter of any name. If a trainer restores from a dictionary in such a field, as Lightning does from its loops,
    it must not be empty. Optimizer, scheduler, scaler and random-number state have separate rules (`optimizer/missing`,
    `scheduler/missing`, …). A misspelt key is left to `state/misspelled-field`.

    ## Why it matters
    A loader that finds no counter starts counting from zero: the same data again, and the learning-rate schedule from
    its warm-up. Most do so silently, because `state.get("epoch", 0)` never fails.

    ## How to repair
    Resume from a checkpoint that has the field, or add it by hand: load the file, set the key to the value that the
    training log shows for this save, and save it again.
    """

    id = "state/missing-field"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each field."""
        state = checkpoint.state
        misspelt = None
        for field in state.fields:
            if field.severity in _NEEDED and field.inside and state.get(field.name) is not None:
                yield from _hollow(state, field)
            if field.severity in _NEEDED and field.name not in _PARTS and state.get(field.name) is None:
                misspelt = misspelt or state.misspelt(field.name)
                if not state.misspelt(field.name):
                    yield _missing(state, field)
        if misspelt:
            raise FactUnavailable(
                f"'{misspelt}' in {state.path} is probably a misspelling", path=state.path, blocked=True
            )


def _missing(state: TrainingState, field: Field) -> Problem:
    key = state.key_of(field.name)
    what = f"the training state has no {field.name}" if key is None else f"'{key}' in the training state is None"
    return Problem(
        message=f"{what}: {field.why}" if field.why else what,
        place=Place(path=state.path, key=key or field.keys[0]),
        severity=field.severity,
        help=f"set '{field.keys[0]}' to the value in the training log, or resume from a checkpoint that has it",
        data={"field": field.name, "looked_for": list(field.keys)},
    )


def _hollow(state: TrainingState, field: Field) -> Iterator[Problem]:
    """A problem where a dictionary lacks what a resume needs in it, or holds nothing there."""
    key, value = state.key_of(field.name) or field.keys[0], state.get(field.name)
    for name in ("", *field.inside):
        if name:
            key, value = f"{key}.{name}", value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or not value:
            said = "missing" if value is None else "empty" if isinstance(value, Mapping) else shown(value)
            yield Problem(
                message=f"'{key}' in the training state is {said}: {field.why}",
                place=Place(path=state.path, key=key),
                severity=field.severity,
                help="resume from a checkpoint that has it",
                data={"field": field.name, "looked_for": [*field.keys, *field.inside]},
            )
            return


class MisspelledField(Rule):
    """A key of the training state is almost the name of a field that is missing.

    ## What it checks
    For each field of the layout that is absent, whether a key with a value of the right kind differs from one of its
    names by a typo: a letter left out, added, changed or swapped, or different capitals or separators. It is an error
    if resuming goes wrong without the field, otherwise a warning.

    ## Why it matters
    Nothing reads a misspelt key. `state.get("optimizer_state_dict")` gives None for a file that holds
    `optimizer_state_dit`, and the optimizer starts from scratch although its full state is in the file.

    ## How to repair
    Rename the key: load the file, move the value to the right key, and save it again. Then fix the code that wrote it.
    """

    id = "state/misspelled-field"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each misspelt key."""
        state = checkpoint.state
        seen: set[str] = set()
        for field in state.fields:
            wanted = field.severity in _NEEDED or field.name in _PARTS
            key = state.misspelt(field.name) if wanted and not _is_elsewhere(checkpoint, field.name) else None
            if key is not None and key not in seen:
                seen.add(key)
                yield _misspelt(state, field, key)


def _is_elsewhere(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a part of the state was found all the same, in a file of its own."""
    if name not in _PARTS:
        return False
    try:
        getattr(checkpoint, name)
    except FactUnavailable:
        return False
    return True


def _misspelt(state: TrainingState, field: Field, key: str) -> Problem:
    meant = misspelling_of(key, field.keys) or field.keys[0]
    return Problem(
        message=f"the training state has '{key}' but no {field.name}: did you mean '{meant}'? {field.why}".rstrip(),
        place=Place(path=state.path, key=key),
        severity=Severity.ERROR if field.severity is Severity.ERROR else None,
        help=f"rename '{key}' to '{meant}' in {state.path}; no loader looks for it under its current name",
        data={"field": field.name, "key": key, "meant": meant},
    )

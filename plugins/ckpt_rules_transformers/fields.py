"""state/refused-field: fields of trainer_state.json that the Trainer refuses, or stumbles over at its first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity, misspelling_of, state_dicts
from ckpt_rules_transformers.arguments import Arguments, arguments
from ckpt_rules_transformers.sharded import STATE

# Every field that a release of transformers has ever written: none was dropped since 3.0.
_KNOWN = frozenset({
    "best_global_step", "best_metric", "best_model_checkpoint", "epoch", "eval_steps", "global_step", "is_hyper_param_search",
    "is_local_process_zero", "is_world_process_zero", "log_history", "logging_steps", "max_steps", "num_input_tokens_seen",
    "num_train_epochs", "save_steps", "stateful_callbacks", "total_flos", "train_batch_size", "trial_name", "trial_params",
})  # fmt: skip
_CONTROL = "TrainerControl"
_CALLBACKS, _BATCH = "stateful_callbacks", "train_batch_size"


class _Kind(NamedTuple):
    """What a field may hold, and what a resume does with anything else."""

    types: tuple[type, ...]
    wanted: str
    then: str


_COMPARED = "the resume stops when it compares the field with the arguments of the run"
_KINDS = {
    "logging_steps": _Kind((int, float), "a number of steps", _COMPARED),
    "save_steps": _Kind((int, float), "a number of steps", _COMPARED),
    _BATCH: _Kind((int, float), "a number of samples", _COMPARED),
    "total_flos": _Kind((int, float), "a number", "the resume stops when it adds to it"),
    _CALLBACKS: _Kind((Mapping,), "a dictionary", "the resume stops when it restores its callbacks, or at its first save"),
    "best_model_checkpoint": _Kind((str, type(None)), "a path or null", "the resume stops when it looks for that checkpoint"),
}  # fmt: skip

_DOUBTFUL = {
    "best_metric": _Kind((int, float, type(None)), "a number or null", "no new metric can be compared with it"),
    "best_global_step": _Kind((int, float, type(None)), "a number or null", "it names the step of the best save"),
}
_BY_STEPS = "steps"
# By field: the argument that says when, by its names in releases, and whether runs do it by steps unless they are told.
_DIVISORS = {
    "logging_steps": (("logging_strategy",), True),
    "eval_steps": (("eval_strategy", "evaluation_strategy"), False),
}


class RefusedField(Rule):
    """The Trainer can't resume with a field of trainer_state.json.

    ## What it checks
    That every field of trainer_state.json is one that a release of transformers knows, and that those which a resume counts
    or compares with hold what it can count with: `logging_steps`, `save_steps`, `train_batch_size`, `total_flos`,
    `stateful_callbacks` and `best_model_checkpoint`; that `global_step` is a whole number, and `logging_steps` and `eval_steps` not
    0 where the run logs or evaluates by steps; and, a warning, `best_metric` and `best_global_step`. Fields that older
    releases did not write may be absent.

    ## Why it matters
    The Trainer builds its state from all fields at once: one that it does not know ends the resume with a TypeError before
    anything is loaded. Null in place of a number ends it at the first step, after minutes of loading.

    ## How to repair
    Correct the field, or take trainer_state.json from where the save was written. If your own Trainer adds the field,
    ignore the finding in the ruleset.
    """

    id = "state/refused-field"
    tags = frozenset({"resume"})
    applies_to = frozenset({"transformers-trainer"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each field."""
        values = checkpoint.state.values
        for key in values:
            if key not in _KNOWN:
                yield _unknown(str(key), values)
        for key, kind in _KINDS.items():
            if key in values and not _fits(values[key], kind):
                yield _wrong(key, values[key], kind)
        for key, kind in _DOUBTFUL.items():
            if key in values and not _fits(values[key], kind):
                yield _wrong(key, values[key], kind).model_copy(update={"severity": Severity.WARNING})
        yield from _incomplete(values)
        yield from _counted(values)
        yield from _divisors(values, arguments(checkpoint))


def _counted(values: Mapping[object, object]) -> Iterator[Problem]:
    step = values.get("global_step")  # one that is not a whole number is left to progress/invalid
    if isinstance(step, float) and step.is_integer():
        then = "the resume stops when it counts epochs with it: 'float' object cannot be interpreted as an integer"
        yield _wrong("global_step", step, _Kind((int,), "written as a whole number, without a fraction", then))


def _divisors(values: Mapping[object, object], told: Arguments) -> Iterator[Problem]:
    """Zero in fields that a run which logs or evaluates by steps divides by; other runs may have it there."""
    for key, (strategies, always) in _DIVISORS.items():
        value, strategy = values.get(key), next(filter(None, map(told.choice, strategies)), None)
        if value != 0 or isinstance(value, bool) or strategy not in {None, _BY_STEPS}:
            continue
        if strategy or always:
            problem = _wrong(
                key, value, _Kind((int,), "more than 0", "the first step divides by it: ZeroDivisionError")
            )
            yield problem if strategy else problem.model_copy(update={"severity": Severity.WARNING})


def _fits(value: object, kind: _Kind) -> bool:
    return isinstance(value, kind.types)


def _unknown(key: str, values: Mapping[object, object]) -> Problem:
    meant = misspelling_of(key, sorted(_KNOWN - set(map(str, values))))
    name = key if len(key) <= 80 else f"{key[:77]}..."
    near = f"; did you mean '{meant}'?" if meant else ""
    return Problem(
        message=f"no release of transformers knows the field '{name}': the resume stops with a TypeError{near}",
        place=Place(path=STATE, key=name),
        help=f"rename it to '{meant}'" if meant else "remove it, unless a Trainer of your own reads it",
        data={"key": name, "meant": meant},
    )


def _wrong(key: str, value: object, kind: _Kind) -> Problem:
    said = "null" if value is None else state_dicts.shown(value)
    return Problem(
        message=f"{key} is {said} and must be {kind.wanted}: {kind.then}",
        place=Place(path=STATE, key=key),
        help="take trainer_state.json from where the save was written, or set the field to what the run used",
        data={"key": key, "value": said, "wanted": kind.wanted},
    )


def _incomplete(values: Mapping[object, object]) -> Iterator[Problem]:
    """What the releases that keep callbacks always write: they then stop without it."""
    callbacks = values.get(_CALLBACKS)
    if isinstance(callbacks, Mapping) and _CONTROL not in callbacks:
        yield Problem(
            message=f"{_CALLBACKS} has no '{_CONTROL}', which the Trainer always writes there: a resumed run stops at its "
            f"first save with KeyError: '{_CONTROL}'",
            place=Place(path=STATE, key=f"{_CALLBACKS}.{_CONTROL}"),
            severity=Severity.WARNING,
            help="take trainer_state.json from where the save was written",
            data={"key": _CONTROL, "found": sorted(map(str, callbacks))[:20]},
        )
    if _CALLBACKS in values and _BATCH not in values:
        yield Problem(
            message=f"there is no {_BATCH}, which every release that writes {_CALLBACKS} writes too: {_COMPARED}",
            place=Place(path=STATE, key=_BATCH),
            severity=Severity.WARNING,
            help=f"set {_BATCH} to the number of samples per device that the run used",
            data={"key": _BATCH},
        )

"""previous/other-history and previous/run-ahead: saves of several runs, or attempts, in one directory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    is_count,
    sibling,
    siblings,
    written_at,
)
from ckpt_rules_transformers.sharded import STATE

_NEAREST = 3
_LOG = "log_history"
_MOST_BYTES = 64 << 20
# What is measured by the clock differs each time; what is counted or computed does not.
_CLOCK = ("runtime", "per_second", "time", "memory", "speed", "eta")


class _Shared(NamedTuple):
    """The first value that two logs have of one step and disagree in; `earlier`: whether they agree before it."""

    step: int
    entry: int
    key: str
    here: float
    there: float
    earlier: bool


_Log = dict[int, tuple[int, dict[str, float]]]
"""The index of the first entry of each step, and the numbers logged at it."""


class OtherHistory(Rule):
    """The training log differs from that of an earlier save in the same directory.

    ## What it checks
    `log_history` of trainer_state.json, which each save takes over from the one before: that all entries of the steps that
    both logs hold agree (loss, learning rate, norm of the gradient; not what is measured by the clock). Compared are the
    three saves before this one, the first, and the one that was written last. It is an error where the logs
    differ from their first common step on and this save, although it has the higher number, was written before the other: it is
    left from an earlier run. Times that contradict the order of saves whose logs agree come from a copy, and count for nothing.

    ## Why it matters
    A run was started again in a directory that still held saves, or was resumed from an older one. The Trainer picks
    the save with the highest number (`resume_from_checkpoint=True`), and `save_total_limit` deletes the lowest: the
    resume continues an abandoned run, and the new saves are deleted.

    ## How to repair
    Name the save to resume from, and move the saves of the other run out of the directory.
    """

    id = "previous/other-history"
    severity = Severity.WARNING
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem: against the nearest save whose log disagrees."""
        own = _log(checkpoint)
        if not own:
            raise FactUnavailable("the checkpoint keeps no log of training")
        logs = {name: _log(other) for name, other in _compared(checkpoint)}
        for name, log in logs.items():
            shared = _disagreement(own, log)
            if shared is not None:
                yield _disagreeing(checkpoint, name, shared, is_dated=_in_order(checkpoint, own, logs))
                return


def _compared(checkpoint: Checkpoint) -> Iterator[tuple[str, Checkpoint]]:
    """Earlier saves, by number, that say most: the nearest, the first, and the one that was written last."""
    before = checkpoint.fact(siblings).before
    if not before:
        raise FactUnavailable("no earlier save of its run lies beside it")
    times = {name: written_at(checkpoint, name) or 0 for name in before}
    for name in dict.fromkeys((*before[:_NEAREST], max(times, key=times.__getitem__), before[-1])):
        try:
            yield name, checkpoint.fact(sibling, name)
        except FactUnavailable:
            continue  # of another layout, or damaged: it is reported where it is verified


def _in_order(checkpoint: Checkpoint, own: _Log, logs: dict[str, _Log]) -> bool:
    """Whether the times at which saves were written can be trusted: a plain copy gives them in the order of copying.

    Two saves whose logs agree are of one run, and the one with the higher number was written later.
    """
    beside = checkpoint.fact(siblings)
    order = [name for name in reversed(beside.before) if name in logs] + [beside.name]
    known = logs | {beside.name: own}
    times = {name: written_at(checkpoint, name) or 0 for name in order}
    pairs = [(one, other) for i, one in enumerate(order) for other in order[i + 1 :] if times[one] > times[other]]
    return not any(
        known[one].keys() & known[other].keys() and _disagreement(known[one], known[other]) is None
        for one, other in pairs
    )


def _log(checkpoint: Checkpoint) -> _Log:
    """The numbers logged at each step, and the index of the first entry of the step."""
    try:
        history = checkpoint.state.values.get(_LOG)
    except FactUnavailable:
        return {}
    found: _Log = {}
    for index, entry in enumerate(history if isinstance(history, list) else ()):
        step = entry.get("step") if isinstance(entry, Mapping) else None
        if is_count(step) and isinstance(entry, Mapping):
            numbers = found.setdefault(int(step), (index, {}))[1]
            # The first is what was taken over: a resume may evaluate once more at the step that it begins with.
            numbers.update({k: v for k, v in entry.items() if k not in numbers and _is_compared(str(k), v)})
    return found


def _is_compared(key: str, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and key != "step" and not any(word in key for word in _CLOCK)


def _disagreement(own: _Log, other: _Log) -> _Shared | None:
    agreed = False
    for step in sorted(own.keys() & other.keys()):
        index, here = own[step]
        there = other[step][1]
        common = here.keys() & there.keys()
        odd = sorted((k for k in common if not _same(here[k], there[k])), key=lambda k: (k != "loss", k))
        if odd:
            return _Shared(step, index, odd[0], here[odd[0]], there[odd[0]], agreed)
        agreed = agreed or bool(common)
    return None


def _same(one: float, other: float) -> bool:
    return one == other or (
        isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    )


def _disagreeing(checkpoint: Checkpoint, name: str, shared: _Shared, *, is_dated: bool) -> Problem:
    own_name = checkpoint.fact(siblings).name
    here, there = written_at(checkpoint, own_name), written_at(checkpoint, name)
    older = is_dated and here is not None and there is not None and here < there
    what = (
        f"the log has {shared.key} {_shown(shared.here)} at step {shared.step:,}, but that of {name}"
        f"{', which was written later,' if older else ''} has {_shown(shared.there)}"
    )
    if older and not shared.earlier:
        meaning = "this save is left from an earlier run in the same directory"
    elif older:
        meaning = "training was resumed from an older save since, and this one is left from the attempt before"
    else:
        meaning = "the two saves are not of the same run"
    return Problem(
        message=f"{what}: {meaning}",
        place=Place(path=STATE, key=f"{_LOG}[{shared.entry}].{shared.key}"),
        severity=Severity.ERROR if older and not shared.earlier else None,
        help=f"resume from {name} or a later save of its run, or move the saves of the other run out of the directory"
        if older
        else f"find out which run {name} and {own_name} are of, and move the saves of the other one out of the directory",
        data={
            "other": name,
            "step": shared.step,
            "key": shared.key,
            "here": _shown(shared.here),
            "there": _shown(shared.there),
            "written_before": older,
        },
    )


def _shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) or abs(value) < 10**15 else f"{str(value)[:15]}..."


class RunAhead(Rule):
    """The run's own state is further along than its newest save.

    ## What it checks
    The trainer_state.json that the Trainer leaves in the directory of a run when training ends (`trainer.save_state()`), where
    one lies beside the newest save: that its `global_step` is less than one interval of saving (`save_steps`) past it.

    ## Why it matters
    The later saves were deleted or are elsewhere: a resume repeats training that was already done. Or the file is from
    another run than the saves.

    ## How to repair
    Look for the later saves. If the run is finished, use the final model in its directory.
    """

    id = "previous/run-ahead"
    severity = Severity.WARNING
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem, at the newest save."""
        beside = checkpoint.fact(siblings)
        if beside.after:
            raise FactUnavailable("it is not the newest save of its run")
        run, values = _state_of_run(checkpoint), checkpoint.state.values
        done, saved = run.get("global_step"), values.get("global_step")
        interval = values.get("save_steps")
        if not is_count(done) or not is_count(saved):
            return
        least = interval if is_count(interval) and interval >= 1 else 1
        if done - saved < least or _is_best(run, beside.name):
            return
        yield Problem(
            message=f"the run's own {STATE} is at step {int(done):,}, but the newest save that is left, "
            f"{beside.name}, is at "
            f"step {int(saved):,}: a resume trains {int(done - saved):,} steps again",
            place=Place(path=f"../{STATE}", key="global_step"),
            help="look for the later saves; if the run is finished, use the final model in its directory",
            data={"run": int(done), "save": int(saved), "save_steps": int(least)},
        )


def _state_of_run(checkpoint: Checkpoint) -> Mapping[object, object]:
    """What the trainer_state.json beside the save holds; FactUnavailable where there is none, or one that can't be read."""
    entry = checkpoint.files.sibling(STATE)
    if entry is None or entry.size > _MOST_BYTES:
        raise FactUnavailable(f"there is no {STATE} in the directory of the run")
    try:
        with checkpoint.files.storage.open(f"../{STATE}") as source:
            value = json.loads(source.read(0, source.size))
    except (OSError, ValueError, RecursionError):
        raise FactUnavailable(f"the {STATE} in the directory of the run can't be read") from None
    if not isinstance(value, Mapping):
        raise FactUnavailable(f"the {STATE} in the directory of the run holds no dictionary")
    return value


def _is_best(run: Mapping[object, object], name: str) -> bool:
    """Whether the save was kept as the best one, when `save_total_limit` deleted those after it."""
    best = run.get("best_model_checkpoint")
    return isinstance(best, str) and best.replace("\\", "/").rstrip("/").rpartition("/")[2] == name

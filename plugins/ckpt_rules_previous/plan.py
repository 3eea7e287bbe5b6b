"""previous/plan-changed: the planned length of training is another than in the save before."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Recorded, Rule, Severity, is_count
from ckpt_rules_previous.saves import base_rates, called, maybe, rates

_PLANS = ("total_steps", "total_epochs")


class PlanChanged(Rule):
    """The planned length of training differs from the previous save.

    ## What it checks
    The planned number of steps (`max_steps`, `max_iters`, `train_iters`), or of epochs if no steps are planned, if both
    saves record it. If the learning rate is constant, no schedule depends on the length, and nothing is reported.

    ## Why it matters
    Most learning-rate schedules are stretched over the planned length: if it changes, the rate jumps at the resume, in
    the middle of a cosine often to twice its value. That may be intended, to extend the run; but often a default, the
    number of GPUs or the size of the dataset changed it.

    ## How to repair
    Resume from the previous save with its planned length. If the change is intended, choose a schedule that suits it,
    and ignore the finding in the ruleset.
    """

    id = "previous/plan-changed"
    severity = Severity.WARNING
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        before, after = _planned(checkpoint.previous), _planned(checkpoint)
        common = [name for name in _PLANS if name in before and name in after]
        if not common:
            raise FactUnavailable("the two saves do not both record a planned length of training")
        name = called(checkpoint.previous)
        was, now = before[common[0]], after[common[0]]
        if was.value != now.value and not _is_constant(checkpoint):
            yield Problem(
                message=f"{now.key} is {_shown(now)}, but it was {_shown(was)} in the previous save, {name}: a "
                "schedule that depends on it has changed"
                f"{_jump(checkpoint)}",
                place=Place(path=now.path, key=now.key),
                help=f"if that was not intended, resume from {name} with {was.key} {_shown(was)}",
                data={"before": _shown(was), "after": _shown(now), "previous": name},
            )


def _is_constant(checkpoint: Checkpoint) -> bool:
    """Whether the learning rates are those that the schedule began with, in both saves."""
    base = base_rates(checkpoint)
    return bool(base) and all(rates(c) == base_rates(c) == base for c in (checkpoint, checkpoint.previous))


def _planned(checkpoint: Checkpoint) -> dict[str, Recorded]:
    """What is recorded of the planned length and makes sense; no limit, 0 or -1, counts as none."""
    recorded = maybe(lambda: checkpoint.recorded) or ()
    return {r.name: r for r in recorded if r.name in _PLANS and is_count(r.value) and r.value > 0}


def _shown(recorded: Recorded) -> str:
    return f"{int(recorded.value):,}"  # type: ignore[call-overload]


def _jump(checkpoint: Checkpoint) -> str:
    before, after = rates(checkpoint.previous), rates(checkpoint)
    if not before or not after or max(after) <= max(before):
        return ""
    return f"; the learning rate rose from {max(before):.4g} to {max(after):.4g}"

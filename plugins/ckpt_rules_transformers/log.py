"""progress/log-disagrees: the log of training against the step at which it was saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, is_count

_KEY = "log_history"


class LogDisagrees(Rule):
    """The log in the checkpoint goes past the step at which it was saved, or goes back.

    ## What it checks
    `log_history` in trainer_state.json: a list of entries whose `step` never falls and never passes `global_step`.

    ## Why it matters
    The state was combined from two saves, or edited: the number of steps from which the Trainer finds its place in the
    data and in the schedule is not the one at which the weights were saved.

    ## How to repair
    Take trainer_state.json from the save that the weights belong to. If the log alone was edited, nothing is lost.
    """

    id = "progress/log-disagrees"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for a log that goes back, one for a log that goes past the global step."""
        state = checkpoint.state
        history = state.values.get(_KEY)
        if history is None:
            raise FactUnavailable("the checkpoint keeps no log of training")
        if not isinstance(history, list):
            yield Problem(
                message=f"{_KEY} is not a list: a resume stops when it adds to the log",
                place=Place(path=state.path, key=_KEY),
                severity=Severity.ERROR,
                help=_HELP,
            )
            return
        steps = [
            (i, int(e["step"])) for i, e in enumerate(history) if isinstance(e, Mapping) and is_count(e.get("step"))
        ]
        last = state.values.get("global_step")
        for (_, one), (index, other) in pairwise(steps):
            if other < one:
                yield _problem(state.path, index, f"the log goes back from step {one:,} to step {other:,}")
                break
        beyond = [(i, s) for i, s in steps if is_count(last) and s > last]
        if beyond and is_count(last):
            index, step = beyond[0]
            words = f"the log has an entry of step {step:,}, past global_step {int(last):,}"
            yield _problem(state.path, index, words)


_HELP = "take trainer_state.json from the save that the weights belong to"


def _problem(path: str, index: int, message: str) -> Problem:
    return Problem(message=message, place=Place(path=path, key=f"{_KEY}[{index}].step"), help=_HELP)

"""previous/progress-went-back: the later save says that less was trained."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule
from ckpt_rules_previous.saves import called, maybe, progress_counters


class ProgressWentBack(Rule):
    """The counters of progress are lower than in the save before.

    ## What it checks
    Each counter that both saves record: the global step, the number of updates, of batches done, and the epoch. The
    first that went back is reported. Saves of the same step may follow one another.

    ## Why it matters
    A resume that did not restore its counters starts its schedules, its logging and its place in the data over, and the
    next saves overwrite older ones. Or the save holds the state of an older one.

    ## How to repair
    Resume from the save before and see in the training log whether its counters were restored. If the run was started
    again into the same directory, move the saves of the old run away.
    """

    id = "previous/progress-went-back"
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem, for the most certain of the counters that went back."""
        name = called(checkpoint.previous)
        counters = progress_counters(checkpoint)
        if not counters:
            raise FactUnavailable("the two saves have no progress counter in common")
        counter = next((c for c in counters if c.after < c.before), None)
        if counter is not None:
            yield Problem(
                message=f"the {counter.name} is {_shown(counter.after)}, but it was {_shown(counter.before)} in the "
                f"previous save, {name}",
                place=_place(checkpoint, counter.name),
                help=f"resume from {name} and check that its counters are restored; if the run was started again, "
                "move the old run's saves elsewhere",
                data={"counter": counter.name, "before": counter.before, "after": counter.after, "previous": name},
            )


def _shown(count: float) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:,.6g}"


def _place(checkpoint: Checkpoint, name: str) -> Place:
    recorded = maybe(lambda: checkpoint.recorded) or ()
    wanted = "epoch" if name == "epoch" else "global_step"
    found = next((r for r in recorded if r.name == wanted), next(iter(recorded), None))
    if found is not None and found.name == wanted:
        return Place(path=found.path, key=found.key)
    state = maybe(lambda: checkpoint.state)
    if name == "epoch" and state is not None and "epoch" in state.values:
        return Place(path=state.path, key="epoch")
    return Place(path=found.path, key=found.key) if found else Place(path=".")

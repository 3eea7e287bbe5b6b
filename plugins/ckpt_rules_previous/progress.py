"""previous/progress-went-back: the later save says that less was trained."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule
from ckpt_rules_previous.saves import called, maybe, progress_counters


class ProgressWentBack(Rule):
    """The progress counters are lower than in the previous save.

    ## What it checks
    Each counter that both saves record: the global step, the number of updates, of batches done, and the epoch. The
    first one that went back is reported. Consecutive saves at the same step are fine.

    ## Why it matters
    A resume that did not restore its counters restarts its schedules, its logging and its position in the data, and the
    next saves overwrite older ones. Or the save contains the state of an older one.

    ## How to repair
    Resume from the previous save and check in the training log that its counters are restored. If the run was started
    again in the same directory, move the old run's saves elsewhere.
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

"""rng/bad-state: random-number state that no generator takes."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, RngFault, RngState, Rule, Severity


class BadRngState(Rule):
    """The state of a random-number generator has a form that the generator does not accept.

    ## What it checks
    Each state that was saved, on every rank: python's has 625 numbers, numpy's begins with `MT19937` and has 624,
    torch's is a uint8 tensor of 5,056 bytes on the CPU and of 16 or more on a GPU. A file or key for such states must
    not be empty, nor hold an optimizer, a scheduler or weights. Keys that the trainer reads must be present. It is an
    error if the resume fails, and a warning if the trainer only logs it, as Accelerate does.

    ## Why it matters
    The Trainer hands each state to its generator and fails with the generator's error after the model was loaded.
    Accelerate skips all of them once one fails, so shuffling and dropout differ from those of an uninterrupted run.

    ## How to repair
    Take the file from another copy of the save. If there is none, remove it: the Trainer then resumes with different
    random numbers.
    """

    id = "rng/bad-state"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each generator of each rank."""
        for state in checkpoint.rngs:
            for fault in state.faults:
                yield _problem(state, fault)


def _problem(state: RngState, fault: RngFault) -> Problem:
    severity = Severity.WARNING if state.logged or not fault.stops else None
    what = f"'{fault.key}'" if fault.key else state.path
    then = "; the trainer only logs this and continues with different random numbers" if state.logged else ""
    return Problem(
        message=f"{what} {fault.sentence}{then}",
        place=Place(path=state.path, key=fault.key or None),
        severity=severity,
        help="take the file from another copy of the save; without it, a resume uses different random numbers",
        data={"key": fault.key},
    )

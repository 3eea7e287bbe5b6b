"""optimizer/empty-state: an optimizer that was saved before its first update, or never asked for its state."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, OptimizerState, Place, Problem, Rule, is_count
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.words import count, inside

_STATELESS = frozenset({"SGD", "unknown"})


class EmptyOptimizerState(Rule):
    """The optimizer has parameter groups but no state, although updates were made.

    ## What it checks
    Whether the optimizer's `state` is empty, or has no entry for any parameter, although the counters or the scheduler
    show that training has begun. SGD without momentum keeps no state and is not checked, nor are optimizers that can't
    be distinguished from it.

    ## Why it matters
    torch loads such a `state_dict` silently, and the moments start again from zero. The usual causes are saving a
    freshly built optimizer, or gathering the state of a sharded one on a rank that has none.

    ## How to repair
    Resume from a checkpoint that has the state. Then check where the saved optimizer is built: it is not the one that
    trains.
    """

    id = "optimizer/empty-state"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each optimizer."""
        for optimizer in checkpoint.optimizers:
            params = sum(len(g.params) for g in optimizer.groups)
            if not params or _may_be_stateless(optimizer) or _has_state(optimizer):
                continue
            if not (evidence := _evidence(checkpoint)):
                return
            yield Problem(
                message=f"the optimizer has {count(params, 'parameter')} and no state for any of them, although "
                f"{evidence}",
                place=Place(path=optimizer.path, key=inside(optimizer.key, "state")),
                help="resume from a checkpoint that has the optimizer's state; with this one, the moments start from "
                "zero",
                data={"parameters": params, "kind": optimizer.kind},
            )


def _may_be_stateless(optimizer: OptimizerState) -> bool:
    """Whether it can be SGD; one with `betas` averages gradients, as fused optimizers outside of torch do, and keeps state."""
    if optimizer.kind == "unknown" and any(g.options.get("betas") is not None for g in optimizer.groups):
        return False
    return optimizer.kind in _STATELESS


def _has_state(optimizer: OptimizerState) -> bool:
    """Whether there is state, of these parameters or of strangers, which optimizer/param-mismatch reports."""
    known = {p for g in optimizer.groups for p in g.params}
    return any(s.tensors or s.hidden or s.step is not None or k not in known for k, s in optimizer.states.items())


def _evidence(checkpoint: Checkpoint) -> str | None:
    """What says that updates were made."""
    expected = maybe(lambda: checkpoint.progress.expected_updates)
    if expected is not None:
        return f"{count(expected, 'update')} were made, according to the recorded progress" if expected else None
    for name in ("global_step", "epoch", "step"):
        recorded = next((r for r in maybe(lambda: checkpoint.recorded) or () if r.name == name), None)
        if recorded and is_count(recorded.value) and recorded.value > 0:
            return f"{recorded.key} is {int(recorded.value):,}"
    steps = maybe(lambda: checkpoint.scheduler.last_epoch)
    return f"the scheduler has made {count(int(steps), 'step')}" if is_count(steps) and steps > 0 else None

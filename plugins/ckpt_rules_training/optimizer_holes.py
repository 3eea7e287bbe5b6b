"""optimizer/incomplete-state: parameters whose state lacks what the optimizer reads, or that have none at all."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, OptimizerState, ParamState, Place, Problem, Rule, Severity, conventions, plain
from ckpt_rules_training.unused import explains_unused
from ckpt_rules_training.words import count, inside, listed

_ADAM = frozenset({"exp_avg", "exp_avg_sq"})
_TORCHS_OWN = frozenset({"foreach", "maximize"})
_LARGEST = "max_exp_avg_sq"


class IncompleteState(Rule):
    """The optimizer's state for a parameter is incomplete or missing.

    ## What it checks
    The state of each parameter is a dictionary; it has the counter `step` if others have one, or if torch's own Adam
    reads it; and with `amsgrad` it has `max_exp_avg_sq`. These are errors. A parameter without any state, while others
    have some, is a warning, unless it may never have had a gradient: if the weights without state make up whole layers,
    whole experts, the same parameter of every layer, or modules outside of layers, they were frozen or unused.

    ## Why it matters
    If part of the state is missing, the next update fails with a KeyError. If all of it is missing, torch silently
    starts this parameter's moments again from zero: its first updates have the size of the learning rate, whatever its
    gradients were before.

    ## How to repair
    Resume from a checkpoint that has all of the state. If a save gathers it from several ranks, find the rank whose
    part was lost.
    """

    id = "optimizer/incomplete-state"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem of each kind for each optimizer."""
        for optimizer in checkpoint.optimizers:
            yield from _odd(optimizer)
            yield from _without_step(optimizer)
            yield from _without_largest(optimizer)
            yield from _without_state(checkpoint, optimizer)


def _odd(optimizer: OptimizerState) -> Iterator[Problem]:
    known = {p for g in optimizer.groups for p in g.params}  # what belongs to none of them, nobody reads
    odd = [(k, s.odd) for k, s in optimizer.states.items() if s.odd and k in known]
    if odd:
        key, said = odd[0]
        yield _problem(optimizer, [k for k, _ in odd], f"the state of parameter {key} is {said}, expected a dictionary")


def _without_step(optimizer: OptimizerState) -> Iterator[Problem]:
    states = {k: s for k, s in optimizer.states.items() if s.tensors and not s.hidden}
    counted = [s for s in states.values() if s.step is not None]
    lacking = [k for k, s in states.items() if s.step is None and _is_like(s, counted)]
    if not counted:  # no other counts: only torch's own classes are known to need it
        lacking = [k for k, s in states.items() if s.tensors.keys() >= _ADAM and _is_torchs(optimizer, k)]
    if lacking:
        others = "although others have one" if counted else "but the optimizer reads it at every update"
        yield _problem(optimizer, lacking, f"the state of parameter {lacking[0]} has no step, {others}")


def _is_like(state: ParamState, others: list[ParamState]) -> bool:
    """Whether others with the same moments count: a composite optimizer keeps a counter for some kinds only."""
    return any(state.tensors.keys() >= other.tensors.keys() for other in others)


def _is_torchs(optimizer: OptimizerState, key: object) -> bool:
    own = next((g.options for g in optimizer.groups if key in g.params), {})
    return own.keys() >= _TORCHS_OWN and "step" not in own


def _without_largest(optimizer: OptimizerState) -> Iterator[Problem]:
    wanted = [p for g in optimizer.groups if plain(g.options.get("amsgrad")) is True for p in g.params]
    states = [
        (p, optimizer.states[p].tensors.keys())
        for p in wanted
        if p in optimizer.states and not optimizer.states[p].hidden
    ]
    lacking = [p for p, names in states if names >= _ADAM and _LARGEST not in names]
    if lacking:
        group = next(g for g in optimizer.groups if lacking[0] in g.params)
        words = f"the state of parameter {lacking[0]} has no {_LARGEST}, although parameter group {group.index} has amsgrad=True"
        yield _problem(optimizer, lacking, words)


def _without_state(checkpoint: Checkpoint, optimizer: OptimizerState) -> Iterator[Problem]:
    params = [p for g in optimizer.groups for p in g.params]
    held = {k for k, s in optimizer.states.items() if s.tensors or s.hidden or s.step is not None or s.odd}
    bare = [p for p in params if p not in held]
    if optimizer.path == conventions.distributed.METADATA and all(isinstance(p, str) for p in params):
        return  # optimizer/untrained-parameter: there the load stops
    if not bare or len(bare) == len(params) or explains_unused(checkpoint, optimizer, len(bare)):
        return
    updates = (
        "" if optimizer.updates is None else f", although the others have made {count(optimizer.updates, 'update')}"
    )
    yield Problem(
        message=f"{len(bare):,} of {count(len(params), 'parameter')} ({listed(bare)}) have no state{updates}: their "
        "moments "
        "start again from zero",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{bare[0]}]")),
        severity=Severity.WARNING,
        help="resume from a checkpoint that has state for all of them; parameters that never had a gradient have no "
        "state",
        data={"parameters": [str(p) for p in bare[:100]], "count": len(bare), "of": len(params)},
    )


def _problem(optimizer: OptimizerState, keys: list[object], words: str) -> Problem:
    more = f", and the same for {len(keys) - 1:,} more" if len(keys) > 1 else ""
    return Problem(
        message=words + more,
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{keys[0]}]")),
        help="resume from a checkpoint with complete optimizer state; with this one, the next update fails",
        data={"parameters": [str(k) for k in keys[:100]], "count": len(keys)},
    )

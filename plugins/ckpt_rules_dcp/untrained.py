"""optimizer/untrained-parameter: parameters of which the optimizer of a distributed checkpoint has no state."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from ckpt_rules import Checkpoint, OptimizerState, Place, Problem, Rule, Severity
from ckpt_rules_dcp import saved
from ckpt_rules_dcp.saved import METADATA

_SHOWN = 3


class UntrainedParameter(Rule):
    """Parameters never had a gradient, and a resume with `set_state_dict` stops at them.

    ## What it checks
    In a distributed checkpoint whose optimizer goes by the names of parameters, as `get_state_dict` saves it: every parameter
    of its groups has state, where most have. Parameters in no group are left alone.

    ## Why it matters
    torch's optimizers begin a parameter's state with its first gradient. Before a load, `get_state_dict` makes state for every
    trainable parameter and asks the checkpoint for it: for one that was in no batch's computation, or that has no elements,
    nothing was saved, and the load stops with `Missing key in checkpoint state_dict`. Parameters that are frozen in the model
    (`requires_grad=False`) are not asked for; the file does not say which these are.

    ## How to repair
    Give the optimizer only parameters that are trained, or freeze the others before the load. To load this save, pass
    `DefaultLoadPlanner(allow_partial_load=True)`.
    """

    id = "optimizer/untrained-parameter"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    most: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of parameters without state up to which they are not taken for frozen.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each optimizer."""
        for optimizer in checkpoint.optimizers:
            params = [p for g in optimizer.groups for p in g.params]
            if optimizer.path != METADATA or not all(isinstance(p, str) for p in params):
                continue
            held = {k for k, s in optimizer.states.items() if s.tensors or s.step is not None or s.odd}
            bare = [str(p) for p in params if p not in held]
            if bare and len(bare) <= self.most * len(params):
                yield _problem(checkpoint, optimizer, bare, len(params))


def _problem(checkpoint: Checkpoint, optimizer: OptimizerState, bare: list[str], of: int) -> Problem:
    shown = ", ".join(bare[:_SHOWN]) + (f" and {len(bare) - _SHOWN:,} more" if len(bare) > _SHOWN else "")
    shapes = {n: t.shape for n, t in checkpoint.fact(saved.model_tensors).items() if n in bare}
    empty = sum(0 in shape for shape in shapes.values())
    hollow = (
        f", {empty:,} of them without an element"
        if empty and len(bare) > 1
        else ", which has no element"
        if empty
        else ""
    )
    return Problem(
        message=f"the optimizer has no state for {len(bare):,} of its {of:,} parameters: {shown}{hollow}; if they are trainable, "
        "set_state_dict stops with 'Missing key in checkpoint state_dict'",
        place=Place(path=optimizer.path, key=f"{optimizer.key}.state.{bare[0]}", tensor=bare[0]),
        help="freeze them (requires_grad=False) or leave them out of the optimizer before the load",
        data={"parameters": bare[:100], "count": len(bare), "of": of},
    )

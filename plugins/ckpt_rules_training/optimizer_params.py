"""optimizer/param-mismatch: whether the optimizer's state can belong to these weights."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, OptimizerState, Problem, Rule
from ckpt_rules_training.params.by_name import other_shapes_by_name
from ckpt_rules_training.params.by_shape import too_many_moments, too_many_parameters
from ckpt_rules_training.params.groups import shared_parameters, stray_states
from ckpt_rules_training.params.moments import half_moments, moment_shapes, uneven_moments
from ckpt_rules_training.params.order import exchanged_moments, out_of_order
from ckpt_rules_training.params.pool import pool_of
from ckpt_rules_training.params.shard import one_shard
from ckpt_rules_training.params.sides import Sides


class ParamMismatch(Rule):
    """The optimizer's state does not fit the weights or its own parameter groups.

    ## What it checks
    Every entry of the state belongs to a parameter of exactly one group, and numbered parameters are in the order in
    which torch numbers them. The moments of one parameter have one shape. Flat moments that have fewer elements than
    the weights, in a file that should hold all of them, are one rank's shard. For optimizers that keep moments of their
    parameter's shape (Adam, SGD, RMSprop, …): if parameter names were saved, each moment has the shape of the weight of
    that name, and in a distributed save every such weight exists; otherwise there are no more moments of any shape than
    weights of that shape, and no more parameters than weights. Frozen, tied and unused parameters are not a mismatch,
    nor are those that PEFT trains but by its configuration does not save: P-tuning's prompt encoder.

    ## Why it matters
    Loading only checks how many parameters a group has. Moments of another model, or of the same model with its layers
    in another order, load silently and land on the wrong parameters: the first update fails or, where shapes happen to
    agree, quietly spoils the weights.

    ## How to repair
    Take optimizer and weights from the same save. If the model has changed since, start with a fresh optimizer.
    """

    id = "optimizer/param-mismatch"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each way in which an optimizer does not fit itself, and for the first in which it does not fit the weights."""
        for optimizer in checkpoint.optimizers:
            for fault_of in (stray_states, out_of_order, shared_parameters, half_moments, uneven_moments):
                yield from fault_of(optimizer)
            yield from _against_weights(checkpoint, optimizer)


def _against_weights(checkpoint: Checkpoint, optimizer: OptimizerState) -> Iterator[Problem]:
    sides = Sides(checkpoint, optimizer, moment_shapes(optimizer), pool_of(checkpoint, optimizer))
    for mismatch_of in (one_shard, too_many_parameters, _other_shapes, exchanged_moments):
        if found := list(mismatch_of(sides)):
            yield from found
            return


def _other_shapes(sides: Sides) -> Iterator[Problem]:
    """Moments that fit no weight: by name where parameters have names, else by how many there are of each shape."""
    if sides.shapes:
        named = other_shapes_by_name(sides)
        yield from too_many_moments(sides) if named is None else named

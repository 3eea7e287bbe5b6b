"""Whether the optimizer is that of one rank alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ckpt_rules import OptimizerState, Problem
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.params.sides import Sides, place_of


def one_shard(sides: Sides) -> Iterator[Problem]:
    """All moments are flat, fit no weights, and have fewer elements, in a file that is not one of several ranks'."""
    optimizer, shapes, pool = sides.optimizer, sides.shapes, sides.pool
    if not _is_one_shard(sides):
        return
    have, there = sum(map(prod, shapes.values())), sum(map(prod, pool))
    key = next(k for k, s in shapes.items() if s not in set(pool))
    yield Problem(
        message=f"all moments are flat and have {have:,} elements, but the weights have {there:,}: this is one "
        "rank's shard of the "
        "optimizer of an FSDP or ZeRO run",
        place=place_of(optimizer, key),
        help="gather the whole optimizer before saving, as FSDP's full_optim_state_dict does, or save each rank's "
        "shard",
        data={"moments": have, "weights": there},
    )


def _is_one_shard(sides: Sides) -> bool:
    optimizer, shapes, pool = sides.optimizer, sides.shapes, sides.pool
    flat = bool(shapes) and all(len(s) == 1 for s in shapes.values())
    if not flat or all(len(s) <= 1 for s in pool) or len(sides.checkpoint.optimizers) > 1 or _named(optimizer):
        return False
    known = set(pool)
    strange = sum(prod(s) for s in shapes.values() if s not in known)
    if not strange or sum(map(prod, shapes.values())) >= sum(map(prod, pool)):
        return False
    ranks = maybe(lambda: sides.checkpoint.ranks)
    paths = {p for family in ranks.families for p in family.paths.values()} if ranks else set()
    return optimizer.path not in paths and not optimizer.path.endswith(".metadata")


def _named(optimizer: OptimizerState) -> bool:
    return any(isinstance(p, str) for g in optimizer.groups for p in g.params)

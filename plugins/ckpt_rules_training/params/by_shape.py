"""Whether there are as many weights as the optimizer has parameters, and moments of any shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod

from ckpt_rules import Place, Problem
from ckpt_rules_training.params.sides import HELP, Shape, Sides, place_of
from ckpt_rules_training.words import count, inside, listed


def too_many_parameters(sides: Sides) -> Iterator[Problem]:
    """More parameters than weights."""
    optimizer, pool = sides.optimizer, sides.pool
    params = len({p for g in optimizer.groups for p in g.params})
    if params > len(pool) and not _is_regrouped(sides.shapes, pool):
        yield Problem(
            message=f"the optimizer has {count(params, 'parameter')}, but there are only {count(len(pool), 'weight tensor')}",
            place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups")),
            help=HELP,
            data={"parameters": params, "weights": len(pool)},
        )


def too_many_moments(sides: Sides) -> Iterator[Problem]:
    """More moments of some shape than weights of that shape."""
    optimizer, shapes, pool = sides.optimizer, sides.shapes, sides.pool
    excess = Counter(shapes.values()) - Counter(pool)
    if not excess or _is_regrouped(shapes, pool):
        return
    have, there = Counter(shapes.values()), Counter(pool)
    parts = [f"{have[s]:,} of shape {list(s)} for {count(there[s], 'weight')}" for s in excess]
    yield Problem(
        message=f"there are more moments than weights of the same shape: {listed(parts, 3)}",
        place=place_of(optimizer, next(k for k, s in shapes.items() if s in excess)),
        help=HELP,
        data={"shapes": [{"shape": list(s), "moments": have[s], "weights": there[s]} for s in list(excess)[:100]]},
    )


def _is_regrouped(shapes: Mapping[object, Shape], pool: list[Shape]) -> bool:
    """Whether weights are the same elements in other tensors: fused or split experts, or flat pieces of all of them."""
    if shapes and all(len(s) == 1 for s in shapes.values()) and any(len(s) > 1 for s in pool):
        return not set(shapes.values()) <= set(pool)
    whole = [s for s in pool if s]  # scores and counters lie beside, and are not weights
    kept = [s for s in shapes.values() if s]
    return len(kept) != len(whole) and sum(map(prod, kept)) == sum(map(prod, whole))

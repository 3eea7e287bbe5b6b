"""Whether parameters, or their moments, stand in another order than that in which torch numbers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ckpt_rules import OptimizerState, Place, Problem
from ckpt_rules_training.params.sides import HELP, Sides
from ckpt_rules_training.words import inside


def out_of_order(optimizer: OptimizerState) -> Iterator[Problem]:
    """Torch numbers parameters from 0 through all groups, and loads by position: any other order exchanges their states."""
    params = [p for g in optimizer.groups for p in g.params]
    numbers = [p for p in params if isinstance(p, int) and not isinstance(p, bool)]
    if len(numbers) < len(params) or numbers == sorted(numbers) or sorted(numbers) != list(range(len(numbers))):
        return
    place, key = next((i, p) for i, p in enumerate(numbers) if i != p)
    start = 0
    for group in optimizer.groups:
        if place < start + len(group.params):
            yield Problem(
                message=f"parameter {key} is at position {place:,} of the parameter groups, where torch writes "
                f"parameter {place}: the order of groups or parameters has changed, so each gets the state "
                "of another",
                place=Place(
                    path=optimizer.path,
                    key=inside(optimizer.key, f"param_groups[{group.index}].params[{place - start}]"),
                ),
                help=HELP,
                data={"parameter": key, "expected": place},
            )
            return
        start += len(group.params)


def exchanged_moments(sides: Sides) -> Iterator[Problem]:
    """Moments that have the shapes of the weights, but not side by side as a module's weight and bias are.

    Modules may come in any order, as scripts list them. Within one, torch lists the weight before the bias, and a script that
    does otherwise does so for most of them.
    """
    checkpoint, optimizer, shapes = sides.checkpoint, sides.optimizer, sides.shapes
    if not shapes or len(optimizer.groups) != 1 or len(checkpoint.optimizers) > 1:
        return
    params = optimizer.groups[0].params
    weights = {n: t.shape for n, t in checkpoint.weights.tensors.items()}
    modules = [n.removesuffix(".weight") for n in weights if n.endswith(".weight")]
    wanted = Counter((weights[f"{m}.weight"], weights[f"{m}.bias"]) for m in modules if f"{m}.bias" in weights)
    if set(params) != shapes.keys() or Counter(shapes.values()) - Counter(weights.values()):
        return
    row = [shapes[p] for p in params]
    trained = set(row)
    wanted = Counter({pair: n for pair, n in wanted.items() if pair[0] != pair[1] and trained.issuperset(pair)})
    lost = wanted - Counter(pairwise(row))
    if len(row) != len(weights) or not lost or lost.total() * 2 >= wanted.total():
        return
    weight, bias = next(iter(lost))
    at = next((i for i, s in enumerate(row) if s == bias and (i == 0 or row[i - 1] != weight)), 0)
    yield Problem(
        message=f"the moments have the shapes of the weights, but in another order: those of a bias, {list(bias)}, "
        "of parameter "
        f"{params[at]} do not follow those of its weight, {list(weight)}, as those of "
        f"{wanted.total() - lost.total():,} of "
        f"{wanted.total():,} biases do",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{params[at]}]")),
        help=HELP,
        data={"weight": list(weight), "bias": list(bias)},
    )

"""Whether each moment has the shape of the weight of its name."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import OptimizerState, Place, Problem
from ckpt_rules_training.params.sides import HELP, Shape, Sides
from ckpt_rules_training.words import inside, listed

_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_FLAT = "_flat_param"
"""What FSDP 1 calls the parameters that it has flattened into one: those beside it are a rank's piece of theirs."""
_DISTRIBUTED = ".metadata"


def other_shapes_by_name(sides: Sides) -> Iterator[Problem] | None:
    """Moments of another shape than their weight; None where not every name is that of a weight, or may be another model's."""
    checkpoint, optimizer, shapes = sides.checkpoint, sides.optimizer, sides.shapes
    flat = all(len(shape) == 1 for shape in shapes.values())
    if not any(g.names for g in optimizer.groups) and (flat or len(checkpoint.optimizers) > 1):
        return None
    pairs = ((p, n) for g in optimizer.groups for p, n in zip(g.params, g.names or g.params, strict=False))
    names = {p: _bare(n) for p, n in pairs if isinstance(n, str)}
    weights = {_bare(name): t.shape for name, t in checkpoint.weights.tensors.items()}
    if any(name.rpartition(".")[2] == _FLAT for name in weights):
        return iter(()) if all(names.get(k) in weights for k in shapes) else None
    nameless = [k for k in shapes if names.get(k) not in weights]
    if nameless:
        # A distributed save has all parameters of the model by the names that its optimizer goes by.
        same = optimizer.path.endswith(_DISTRIBUTED) and 2 * len(nameless) <= len(shapes)
        return iter([_lost_weights(optimizer, nameless, len(shapes))]) if same else None
    return _name_problems(optimizer, [(k, names[k], s, weights[names[k]]) for k, s in shapes.items()])


def _name_problems(optimizer: OptimizerState, pairs: list[tuple[object, str, Shape, Shape]]) -> Iterator[Problem]:
    wrong = [p for p in pairs if p[2] != p[3]]
    if wrong:
        key, name, moment, weight = wrong[0]
        more = f"; the same for {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        yield Problem(
            message=f"the moments of {name} have the shape {list(moment)}, the weight has {list(weight)}{more}",
            place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{key}]"), tensor=name),
            help=HELP,
            data={"parameters": [n for _, n, _, _ in wrong[:100]], "count": len(wrong)},
        )


def _lost_weights(optimizer: OptimizerState, keys: list[object], of: int) -> Problem:
    return Problem(
        message=f"the optimizer has state for {listed(keys)}, and the weights have no tensor by "
        f"{'these names' if len(keys) > 1 else 'this name'}, as they have for the other {of - len(keys):,}",
        place=Place(path=optimizer.path, key=inside(optimizer.key, f"state[{keys[0]}]"), tensor=str(keys[0])),
        help="resume from a checkpoint that has all weights; loading looks up each one by name and fails if it is "
        "missing",
        data={"parameters": [str(k) for k in keys[:100]], "count": len(keys)},
    )


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "") if name.startswith(wrapper) or f".{wrapper}" in name else name
    return name

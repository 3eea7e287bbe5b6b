"""optimizer/param-mismatch: whether the optimizer's state can belong to these weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, OptimizerState, ParamState, Place, Problem, Rule, TensorInfo
from ckpt_rules_training.maybe import maybe
from ckpt_rules_training.optimizer_order import HELP, exchanged, out_of_order
from ckpt_rules_training.words import count, inside, listed

Shape = tuple[int, ...]

_ELEMENTWISE = frozenset(
    {
        "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum",
        "prev", "step_size", "ax",
    }
)  # fmt: skip
_ADAM = frozenset({"exp_avg", "exp_avg_sq"})
_SCALARS = frozenset({"mu_product", "eta", "mu"})
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_MAX_NESTING = 4
_FLAT = "_flat_param"
"""What FSDP 1 calls the parameters that it has flattened into one: those beside it are a rank's piece of theirs."""
_DISTRIBUTED = ".metadata"


class ParamMismatch(Rule):
    """The optimizer's state does not fit the weights, or not its own groups.

    ## What it checks
    Every entry of the state belongs to a parameter of exactly one group, and numbered parameters stand in the order in which
    torch numbers them. The moments of one parameter have one shape. Flat moments that have fewer elements than the weights,
    in a file that ought to hold all of them, are one rank's shard. For
    optimizers that keep moments of their parameter's shape (Adam, SGD, RMSprop, …): where parameter names were saved, each
    moment has the shape of the weight of that name, and in a distributed save there is such a weight for each; else there are
    not more moments of any shape than weights of that shape, nor more parameters than weights. Frozen, tied and unused parameters are no mismatch, nor are those that
    PEFT trains and does not save, by its configuration: the encoder of P-tuning's prompts.

    ## Why it matters
    Loading checks how many parameters a group has, and nothing else. Moments of another model, or of the same model with its
    layers in another order, load silently and land on the wrong parameters: the first update fails or, where shapes
    happen to agree, quietly spoils the weights.

    ## How to repair
    Take optimizer and weights from the same save. If the model was changed since, the optimizer has to start afresh.
    """

    id = "optimizer/param-mismatch"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each way in which an optimizer does not fit."""
        for optimizer in checkpoint.optimizers:
            yield from _within(optimizer)
            yield from _against_weights(checkpoint, optimizer)


def _within(optimizer: OptimizerState) -> Iterator[Problem]:
    yield from _stray_states(optimizer)
    yield from out_of_order(optimizer)
    yield from _shared_parameters(optimizer)
    yield from _half_moments(optimizer)
    yield from _uneven_moments(optimizer)


def _against_weights(checkpoint: Checkpoint, optimizer: OptimizerState) -> Iterator[Problem]:
    shapes = _moment_shapes(optimizer)
    pool = _pool(checkpoint, optimizer)
    if _is_one_shard(checkpoint, optimizer, shapes, pool):
        yield _one_shard(optimizer, shapes, pool)
        return
    surplus = list(_too_many_parameters(optimizer, shapes, pool))
    yield from surplus
    if shapes and not surplus:
        named = _by_name(checkpoint, optimizer, shapes)
        found = list(_by_shape(optimizer, shapes, pool) if named is None else named)
        yield from found or exchanged(checkpoint, optimizer, shapes)


def _stray_states(optimizer: OptimizerState) -> Iterator[Problem]:
    known = {p for g in optimizer.groups for p in g.params}
    strays = [k for k, s in optimizer.states.items() if k not in known and not s.odd]
    if strays:
        many = len(strays) > 1
        yield Problem(
            message=f"the state has {'entries' if many else 'an entry'} for {listed(strays)}, {'which are' if many else 'which is'} "
            f"no parameter of any of its {count(len(optimizer.groups), 'group')}",
            place=_place(optimizer, strays[0]),
            help=HELP,
            data={"parameters": [str(s) for s in strays[:100]], "count": len(strays)},
        )


def _shared_parameters(optimizer: OptimizerState) -> Iterator[Problem]:
    owners = Counter(p for g in optimizer.groups for p in g.params)
    twice = [p for p, n in owners.items() if n > 1]
    if twice:
        yield Problem(
            message=f"{count(len(twice), 'parameter')} ({listed(twice)}) stand in more than one place of the parameter groups",
            place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups")),
            help=HELP,
            data={"parameters": [str(p) for p in twice[:100]]},
        )


def _half_moments(optimizer: OptimizerState) -> Iterator[Problem]:
    """Adam's moments come in pairs: with one of the two, the next update stops with a KeyError."""
    whole = any(s.tensors.keys() >= _ADAM for s in optimizer.states.values())
    # In a distributed save each is an entry of its own: all may have lost one, some this and some the other.
    if not whole and not (optimizer.path == _DISTRIBUTED and _names(optimizer) == _ADAM):
        return
    halves = [(k, _ADAM - s.tensors.keys()) for k, s in optimizer.states.items() if _is_half(s)]
    if halves:
        key, absent = halves[0]
        more = f", and {len(halves) - 1:,} more lack one as well" if len(halves) > 1 else ""
        yield Problem(
            message=f"the state of parameter {key} has no {' and no '.join(sorted(absent))}, which others have{more}",
            place=_place(optimizer, key),
            help=HELP,
            data={"parameters": [str(k) for k, _ in halves[:100]]},
        )


def _is_half(state: ParamState) -> bool:
    """One moment of two, or a counter and no moment; other parameters may have another optimizer's state."""
    if state.hidden & _ADAM:
        return False
    return len(_ADAM & state.tensors.keys()) == 1 or (not state.tensors and state.step is not None)


def _uneven_moments(optimizer: OptimizerState) -> Iterator[Problem]:
    uneven = [(k, s) for k, s in optimizer.states.items() if len(_shapes(s)) > 1]
    if uneven:
        key, state = uneven[0]
        moments = listed(f"{n} {list(t.shape)}" for n, t in state.tensors.items() if n in _ELEMENTWISE)
        more = f", and so do those of {len(uneven) - 1:,} more" if len(uneven) > 1 else ""
        yield Problem(
            message=f"the moments of parameter {key} differ in shape ({moments}){more}",
            place=_place(optimizer, key),
            help=HELP,
            data={"parameters": [str(k) for k, _ in uneven[:100]]},
        )


def _shapes(state: ParamState) -> set[Shape]:
    return {t.shape for n, t in state.tensors.items() if n in _ELEMENTWISE}


def _names(optimizer: OptimizerState) -> set[str]:
    return {n for s in optimizer.states.values() for n in (*s.tensors, *s.hidden)}


def _moment_shapes(optimizer: OptimizerState) -> dict[object, Shape]:
    """The shape that each parameter's moments have; nothing where the optimizer keeps other things as well."""
    names = _names(optimizer)
    if not names <= _ELEMENTWISE | _SCALARS:
        return {}
    found = {k: _shapes(s) for k, s in optimizer.states.items()}
    return {k: next(iter(v)) for k, v in found.items() if len(v) == 1}


def _pool(checkpoint: Checkpoint, optimizer: OptimizerState) -> list[Shape]:
    """Shapes of everything that may be a parameter: the weights, and other tensors that the state keeps."""
    return checkpoint.fact(_all_shapes, optimizer.key.partition("[")[0])


def _all_shapes(checkpoint: Checkpoint, key: str) -> list[Shape]:
    """The same for all optimizers under one key, each of a rank: they are many, and are told once."""
    weights = checkpoint.weights
    broken = next(iter(weights.broken), None)
    if broken is not None:
        raise FactUnavailable(f"{broken.path} is damaged", path=broken.path, blocked=True)
    present = {f.path for f in weights.files}
    missing = [
        name for name in weights.expected if name not in present and not any(p.endswith(f"/{name}") for p in present)
    ]
    if missing:
        raise FactUnavailable(f"the weights are not complete: {listed(missing)} is missing")
    state = maybe(lambda: checkpoint.state.path)
    outside = [t.shape for f, _, t in weights.items() if f.path != state or not f.key or _is_pickled(checkpoint, f.key)]
    return [*outside, *weights.behind, *_beside(checkpoint, key)]


def _is_pickled(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a key of the state holds a whole module, whose tensors are not among the state's own."""
    state = maybe(lambda: checkpoint.state)
    return state is not None and isinstance(state.values.get(key), Opaque)


def _beside(checkpoint: Checkpoint, own: str) -> list[Shape]:
    values = maybe(lambda: checkpoint.state.values) or {}
    return [t.shape for k, v in values.items() if k != own for t in _tensors(v, _MAX_NESTING)]


def _tensors(value: object, depth: int) -> Iterator[TensorInfo]:
    if isinstance(value, TensorInfo):
        if "float" in value.dtype or "complex" in value.dtype:  # random-number states are bytes
            yield value
    elif isinstance(value, Mapping) and depth and "param_groups" not in value:
        for part in value.values():
            yield from _tensors(part, depth - 1)


def _too_many_parameters(
    optimizer: OptimizerState, shapes: Mapping[object, Shape], pool: list[Shape]
) -> Iterator[Problem]:
    params = len({p for g in optimizer.groups for p in g.params})
    if params > len(pool) and not _is_regrouped(shapes, pool):
        yield Problem(
            message=f"the optimizer has {count(params, 'parameter')}, but there are only {count(len(pool), 'weight tensor')}",
            place=Place(path=optimizer.path, key=inside(optimizer.key, "param_groups")),
            help=HELP,
            data={"parameters": params, "weights": len(pool)},
        )


def _is_regrouped(shapes: Mapping[object, Shape], pool: list[Shape]) -> bool:
    """Whether weights are the same elements in other tensors: fused or split experts, or flat pieces of all of them."""
    if shapes and all(len(s) == 1 for s in shapes.values()) and any(len(s) > 1 for s in pool):
        return not set(shapes.values()) <= set(pool)
    whole = [s for s in pool if s]  # scores and counters lie beside, and are no weights
    kept = [s for s in shapes.values() if s]
    return len(kept) != len(whole) and sum(map(prod, kept)) == sum(map(prod, whole))


def _is_one_shard(
    checkpoint: Checkpoint, optimizer: OptimizerState, shapes: Mapping[object, Shape], pool: list[Shape]
) -> bool:
    """Whether all moments are flat, fit no weights, and have fewer elements, in a file that is not one of several ranks'."""
    flat = bool(shapes) and all(len(s) == 1 for s in shapes.values())
    if not flat or all(len(s) <= 1 for s in pool) or len(checkpoint.optimizers) > 1 or _named(optimizer):
        return False
    known = set(pool)
    strange = sum(prod(s) for s in shapes.values() if s not in known)
    if not strange or sum(map(prod, shapes.values())) >= sum(map(prod, pool)):
        return False
    ranks = maybe(lambda: checkpoint.ranks)
    paths = {p for family in ranks.families for p in family.paths.values()} if ranks else set()
    return optimizer.path not in paths and not optimizer.path.endswith(".metadata")


def _named(optimizer: OptimizerState) -> bool:
    return any(isinstance(p, str) for g in optimizer.groups for p in g.params)


def _one_shard(optimizer: OptimizerState, shapes: Mapping[object, Shape], pool: list[Shape]) -> Problem:
    have, there = sum(map(prod, shapes.values())), sum(map(prod, pool))
    key = next(k for k, s in shapes.items() if s not in set(pool))
    return Problem(
        message=f"all moments are flat and have {have:,} elements, the weights have {there:,}: this is one rank's shard of the "
        "optimizer of an FSDP or ZeRO run",
        place=_place(optimizer, key),
        help="gather the whole optimizer before saving, as FSDP's full_optim_state_dict does, or save each rank's shard",
        data={"moments": have, "weights": there},
    )


def _by_name(
    checkpoint: Checkpoint, optimizer: OptimizerState, shapes: Mapping[object, Shape]
) -> Iterator[Problem] | None:
    """A comparison by parameter name; None where not every name is that of a weight, or it may be that of another model."""
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
        more = f"; so have {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
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
        help="resume from a checkpoint that has all weights; a load asks for each by its name, and stops without it",
        data={"parameters": [str(k) for k in keys[:100]], "count": len(keys)},
    )


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "") if name.startswith(wrapper) or f".{wrapper}" in name else name
    return name


def _by_shape(optimizer: OptimizerState, shapes: Mapping[object, Shape], pool: list[Shape]) -> Iterator[Problem]:
    excess = Counter(shapes.values()) - Counter(pool)
    if not excess or _is_regrouped(shapes, pool):
        return
    have, there = Counter(shapes.values()), Counter(pool)
    parts = [f"{have[s]:,} of shape {list(s)} for {count(there[s], 'weight')}" for s in excess]
    yield Problem(
        message=f"there are more moments than weights of the same shape: {listed(parts, 3)}",
        place=_place(optimizer, next(k for k, s in shapes.items() if s in excess)),
        help=HELP,
        data={"shapes": [{"shape": list(s), "moments": have[s], "weights": there[s]} for s in list(excess)[:100]]},
    )


def _place(optimizer: OptimizerState, parameter: object) -> Place:
    return Place(path=optimizer.path, key=inside(optimizer.key, f"state[{parameter}]"))

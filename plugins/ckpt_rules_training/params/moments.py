"""Whether the moments of each parameter belong together."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import OptimizerState, ParamState, Problem
from ckpt_rules_training.params.sides import HELP, Shape, place_of
from ckpt_rules_training.words import listed

_ELEMENTWISE = frozenset(
    {
        "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum",
        "prev", "step_size", "ax",
    }
)  # fmt: skip
_ADAM = frozenset({"exp_avg", "exp_avg_sq"})
_SCALARS = frozenset({"mu_product", "eta", "mu"})
_DISTRIBUTED = ".metadata"


def half_moments(optimizer: OptimizerState) -> Iterator[Problem]:
    """Adam's moments come in pairs: with one of the two, the next update stops with a KeyError."""
    whole = any(s.tensors.keys() >= _ADAM for s in optimizer.states.values())
    # In a distributed save each is an entry of its own: all may have lost one, some this and some the other.
    if not whole and not (optimizer.path == _DISTRIBUTED and _names(optimizer) == _ADAM):
        return
    halves = [(k, _ADAM - s.tensors.keys()) for k, s in optimizer.states.items() if _is_half(s)]
    if halves:
        key, absent = halves[0]
        more = f", and {len(halves) - 1:,} more lack one too" if len(halves) > 1 else ""
        yield Problem(
            message=f"the state of parameter {key} has no {' and no '.join(sorted(absent))}, unlike other "
            f"parameters{more}",
            place=place_of(optimizer, key),
            help=HELP,
            data={"parameters": [str(k) for k, _ in halves[:100]]},
        )


def _is_half(state: ParamState) -> bool:
    """One moment of two, or a counter and no moment; other parameters may have another optimizer's state."""
    if state.hidden & _ADAM:
        return False
    return len(_ADAM & state.tensors.keys()) == 1 or (not state.tensors and state.step is not None)


def uneven_moments(optimizer: OptimizerState) -> Iterator[Problem]:
    """Moments of one parameter that differ in shape."""
    uneven = [(k, s) for k, s in optimizer.states.items() if len(_shapes(s)) > 1]
    if uneven:
        key, state = uneven[0]
        moments = listed(f"{n} {list(t.shape)}" for n, t in state.tensors.items() if n in _ELEMENTWISE)
        more = f", and the same for {len(uneven) - 1:,} more" if len(uneven) > 1 else ""
        yield Problem(
            message=f"the moments of parameter {key} differ in shape ({moments}){more}",
            place=place_of(optimizer, key),
            help=HELP,
            data={"parameters": [str(k) for k, _ in uneven[:100]]},
        )


def moment_shapes(optimizer: OptimizerState) -> dict[object, Shape]:
    """The shape that each parameter's moments have; nothing where the optimizer keeps other things as well."""
    names = _names(optimizer)
    if not names <= _ELEMENTWISE | _SCALARS:
        return {}
    found = {k: _shapes(s) for k, s in optimizer.states.items()}
    return {k: next(iter(v)) for k, v in found.items() if len(v) == 1}


def _shapes(state: ParamState) -> set[Shape]:
    return {t.shape for n, t in state.tensors.items() if n in _ELEMENTWISE}


def _names(optimizer: OptimizerState) -> set[str]:
    return {n for s in optimizer.states.values() for n in (*s.tensors, *s.hidden)}

"""What the parameter groups of torch's own optimizers hold: loading takes the saved options as they are, and fills in few.

Each class in `torch.optim` sets defaults for the options that came later (`foreach`, `maximize`, `capturable`, …) where a
saved group lacks them, and reads the others by name at every update: without one of those it stops with a KeyError.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import OptimizerState, ParamGroup, TensorInfo, plain

ABSENT = object()
"""Stands for the value of an option that is not there."""

_STOPS = "but the optimizer reads it at every update and fails without it"
_SIBLINGS = "although other groups have it"
_USUAL = ("lr", "betas", "eps", "weight_decay", "momentum")
_TORCHS_OWN = frozenset({"foreach", "maximize"})
_ADAM_LIKE = ("lr", "betas", "eps", "weight_decay")
# Marks that only one family has, by torch 2.13, and what it reads.
_FAMILIES: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (frozenset({"amsgrad"}), _ADAM_LIKE),
    (frozenset({"momentum_decay"}), _ADAM_LIKE),
    (frozenset({"decoupled_weight_decay", "capturable"}), _ADAM_LIKE),
    (frozenset({"dampening"}), ("lr", "momentum", "weight_decay")),
    (frozenset({"nesterov"}), ("lr", "momentum", "weight_decay", "dampening")),
    (frozenset({"centered", "alpha"}), ("lr", "alpha", "eps", "weight_decay", "momentum")),
    (frozenset({"lr_decay"}), ("lr", "eps", "weight_decay")),
    (frozenset({"rho"}), ("lr", "eps", "weight_decay")),
)
_TWO = 2


def absences(optimizer: OptimizerState, group: ParamGroup) -> Iterator[tuple[str, object, str]]:
    """Options that are missing, None, or of another length, each with its value and what is wrong."""
    options = group.options
    wanted = needed(group)
    for name in wanted:
        if name not in options:
            yield name, ABSENT, _STOPS
        elif options[name] is None:
            yield name, None, _STOPS
        elif name != "betas" and isinstance(options[name], list | tuple) and not isinstance(options[name], TensorInfo):
            yield name, options[name], "expected a number"
    for name in _lost(optimizer, group) if not wanted else ():
        yield name, ABSENT, _SIBLINGS
    betas = plain(options.get("betas"))
    listed = "betas" in wanted and isinstance(betas, list | tuple)
    if listed and (len(betas) != _TWO or None in betas):  # type: ignore[arg-type, operator]
        yield "betas", betas, "expected two numbers"


def _lost(optimizer: OptimizerState, group: ParamGroup) -> list[str]:
    """Usual options that a group lacks which has otherwise all that another has: of one class, and not of two in one."""
    own = group.options.keys()
    more = [g.options.keys() - own for g in optimizer.groups if own < g.options.keys()]
    return [name for name in _USUAL if any(name in names for names in more)]


def needed(group: ParamGroup) -> tuple[str, ...]:
    """What torch's class reads; nothing for classes of others, which may keep the same by other names."""
    if not group.options.keys() >= _TORCHS_OWN:
        return ()
    return next((names for marks, names in _FAMILIES if marks <= group.options.keys()), ())

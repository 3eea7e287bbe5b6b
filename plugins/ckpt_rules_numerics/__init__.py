"""Rules about the values of tensors: they read every byte."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `numerics/` family."""
    from ckpt_rules_numerics.copies import ReplicasDiffer
    from ckpt_rules_numerics.ema import EmaIsModel
    from ckpt_rules_numerics.finite import NonFinite
    from ckpt_rules_numerics.masters import MasterVsModel
    from ckpt_rules_numerics.moments import NegativeSecondMoment
    from ckpt_rules_numerics.weights import AllZero, Constant, Fp16Range, Huge

    return [
        AllZero,
        Constant,
        EmaIsModel,
        Fp16Range,
        Huge,
        MasterVsModel,
        NegativeSecondMoment,
        NonFinite,
        ReplicasDiffer,
    ]

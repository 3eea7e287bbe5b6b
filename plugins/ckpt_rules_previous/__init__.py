"""Rules that compare a checkpoint with an earlier one of the same run."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The `previous/` family."""
    from ckpt_rules_previous.files import Smaller
    from ckpt_rules_previous.lacking import LacksFile
    from ckpt_rules_previous.optimizer import OptimizerReset
    from ckpt_rules_previous.plan import PlanChanged
    from ckpt_rules_previous.progress import ProgressWentBack
    from ckpt_rules_previous.stale import StaleState
    from ckpt_rules_previous.tensors import ShapeOrDtype, TensorSet
    from ckpt_rules_previous.values import NormJump, Unchanged

    return [
        LacksFile,
        NormJump,
        OptimizerReset,
        PlanChanged,
        ProgressWentBack,
        ShapeOrDtype,
        Smaller,
        StaleState,
        TensorSet,
        Unchanged,
    ]

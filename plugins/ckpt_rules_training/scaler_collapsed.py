"""scaler/collapsed: a loss scale that gradients can't survive."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_training.words import inside, shown


class CollapsedScaler(Rule):
    """The gradient scaler's loss scale has collapsed.

    ## What it checks
    The loss scale of an enabled gradient scaler: it must be a positive, finite number. A scale below 1 is a warning.

    ## Why it matters
    The scale is halved at every update whose gradients overflow. A scale near zero means that every update has
    overflowed for a long time: the loss or the weights are probably NaN already, and every further update is skipped
    while the counters continue.

    ## How to repair
    Resume from a checkpoint saved before the gradients overflowed, with a lower learning rate or with bfloat16, which
    needs no scaling. Resetting the scale alone only hides the problem for a few updates.
    """

    id = "scaler/collapsed"
    tags = frozenset({"resume", "numerics"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        scaler = checkpoint.scaler
        if not scaler.enabled:
            raise FactUnavailable("the gradient scaler is disabled")
        if scaler.scale is None:
            raise FactUnavailable("the gradient scaler's state does not show its scale")
        fault = _fault(scaler.scale)
        if fault:
            severity, words = fault
            yield Problem(
                message=f"the loss scale is {shown(scaler.scale)}, {words}",
                place=Place(path=scaler.path, key=inside(scaler.key, "scale")),
                severity=severity,
                help="resume from a checkpoint saved before the gradients overflowed",
                data={"scale": scaler.scale},
            )


def _fault(scale: object) -> tuple[Severity | None, str] | None:
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        return None, "which is not a number"
    if not 0 < scale < math.inf:
        return None, "every update will be skipped or produce NaN"
    return (Severity.WARNING, "nearly every recent update must have overflowed") if scale < 1 else None

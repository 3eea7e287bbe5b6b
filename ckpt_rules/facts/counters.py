"""What is wrong with progress counters by themselves: shared by layouts, which then don't trust them, and by rules."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ckpt_rules.facts.training import Recorded, is_count

COUNTERS = frozenset({"epoch", "step", "total_batches", "global_step"})
_POSITIVE = frozenset({"total_batches", "gradient_accumulation"})
_PLANS = frozenset({"total_epochs", "total_steps"})
_UNLIMITED = (-1, 0)
_LIMIT = 2**63


def counter_faults(recorded: Iterable[Recorded], updates: int | None) -> list[tuple[Recorded, str]]:
    """Each counter that can't be right, and what is wrong with it, to follow the counter's name and value.

    updates: optimizer updates done, or None where nobody counted them
    """
    counters = {r.name: r for r in recorded}
    faults = {name: fault for name, r in counters.items() if (fault := _fault(r))}
    sound = {name: int(r.value) for name, r in counters.items() if name not in faults and is_count(r.value)}
    for name, fault in _contradictions(sound, updates):
        faults.setdefault(name, fault)
    return [(counters[name], fault) for name, fault in faults.items()]


def _fault(recorded: Recorded) -> str | None:
    value, name = recorded.value, recorded.name
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "which is not a number"
    if name in _PLANS:
        unlimited = value in _UNLIMITED or value == math.inf
        return (
            None if unlimited or value > 0 else "which is not a plan: a positive number is expected, or -1 for no limit"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return "which is not finite"
    if value < 0:
        return "which is negative"
    if value >= _LIMIT:
        return "which is absurdly large: it does not fit in 63 bits"
    if not is_count(value):
        return "which is not a whole number"
    return "where at least 1 is needed" if name in _POSITIVE and value < 1 else None


def _contradictions(sound: dict[str, int], updates: int | None) -> Iterable[tuple[str, str]]:
    step, total = sound.get("step"), sound.get("total_batches")
    if step is not None and total is not None and step >= total:
        yield "step", f"but an epoch has only {total:,} batches (0 to {total - 1:,})"
    if not updates:
        return
    used = f"although the optimizer has made {updates:,} update{'' if updates == 1 else 's'}"
    if step == 0 and sound.get("epoch") == 0:
        yield "epoch", f"and step 0, {used}"
    elif sound.get("epoch") == 0 and total and updates > total:
        yield "epoch", f"{used}, more than an epoch of {total:,} batches allows"
    # An iteration counted from 0 and already finished is one behind.
    counter = "global_step" if "global_step" in sound else "step" if "epoch" not in sound else None
    if counter and sound.get(counter) == 0 and updates > 1:
        yield counter, used

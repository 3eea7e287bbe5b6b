"""The schedulers inside of a sequence or a chain: what they have counted, and the rates that they set.

A sequence of torch counts its own steps; at each milestone it starts the next part at step 0, and steps that part alone. The
parts before stay where they were, and those to come are at -1, so that nothing can be said of either.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from ckpt_rules import Place, Problem, SchedulerState, is_count, plain
from ckpt_rules_training.words import inside, shown

_SEQUENCE, _CHAIN = "SequentialLR", "ChainedScheduler"
_SAME = 1e-6
_ABSURD = 1e300


def at_work(scheduler: SchedulerState) -> tuple[SchedulerState, int] | None:
    """The part that a sequence is at, and the steps that it must have made; None for others, or where it can't be told."""
    steps, milestones = scheduler.last_epoch, scheduler.milestones
    whole = [int(m) for m in milestones if is_count(m) and m > 0]
    told = len(whole) == len(milestones) == len(scheduler.parts) - 1 and whole == sorted(whole)
    if scheduler.kind != _SEQUENCE or not told or not is_count(steps):
        return None
    number = bisect_right(whole, steps)
    return scheduler.parts[number], int(steps) - (whole[number - 1] if number else 0)


def is_last(scheduler: SchedulerState) -> bool:
    """Whether no other part of a sequence is to come."""
    found = at_work(scheduler)
    return found is None or found[0] is scheduler.parts[-1]


def counter_key(scheduler: SchedulerState) -> str:
    """Where a scheduler's count of steps is stored: a chain leaves it to its parts."""
    if "last_epoch" not in scheduler.values and scheduler.parts:
        return counter_key(scheduler.parts[0])
    return inside(scheduler.key, "last_epoch")


def part_steps(scheduler: SchedulerState, *, ahead: int = 0) -> Iterator[Problem]:
    """A problem for the part at work in a sequence that has made other steps than those since its milestone.

    Likewise for a chain's part that has made other steps than the first, and for parts inside of parts.
    ahead: steps that a sequence counts and its first part did not make
    """
    if found := at_work(scheduler):
        part, due = found
        due -= ahead if part is scheduler.parts[0] else 0
        words = f"the sequence of schedulers is at step {shown(scheduler.last_epoch)}"
        yield from _of_part(part, due, f"{words}, {due:,} after this part began", nested=part.kind == _SEQUENCE)
    elif scheduler.kind == _CHAIN and is_count(scheduler.last_epoch):
        due = int(scheduler.last_epoch)
        for part in scheduler.parts:
            yield from _of_part(part, due, f"the first scheduler of the chain has made {due:,}")


def _of_part(part: SchedulerState, due: int, why: str, *, nested: bool = False) -> Iterator[Problem]:
    """nested: a sequence in a sequence, of which torch (2.13) takes back the parts' first step, and not its own."""
    if part.last_epoch is None:
        return
    ahead = int(part.last_epoch) - due if is_count(part.last_epoch) else -1
    if 0 <= ahead <= int(nested):
        yield from part_steps(part, ahead=ahead)
        return
    yield Problem(
        message=f"last_epoch of a part of the scheduler ({part.kind}) is {shown(part.last_epoch)}, but {why}",
        place=Place(path=part.path, key=counter_key(part)),
        help="rebuild the scheduler and step it forward to the current training step",
        data={"last_epoch": str(part.last_epoch), "expected": due},
    )


def part_rates(scheduler: SchedulerState) -> Iterator[Problem]:
    """A problem where the part that set the rate last has set another than the whole says."""
    found = at_work(scheduler)
    part = found[0] if found else scheduler.parts[-1] if scheduler.kind == _CHAIN and scheduler.parts else None
    if part is None or len(part.last_lr) != len(scheduler.last_lr):
        return
    pairs = list(zip(map(_number, scheduler.last_lr), map(_number, part.last_lr), strict=True))
    odd = next((i for i, (a, b) in enumerate(pairs) if not math.isclose(a, b, rel_tol=_SAME)), None)
    if odd is None:
        yield from part_rates(part)
        return
    whole, own = pairs[odd]
    yield Problem(
        message=f"the scheduler set the learning rate of parameter group {odd} to {whole:g}, but its active part ("
        f"{part.kind}) to {own:g}",
        place=Place(path=part.path, key=inside(part.key, f"_last_lr[{odd}]")),
        help="the two are written together: rebuild the scheduler and step it forward to the current training step",
        data={"group": odd, "scheduler": whole, "part": own},
    )


def _number(value: object) -> float:
    """A rate; 0 for what is none, which optimizer/bad-hyperparameter reports."""
    value = plain(value)
    return float(value) if isinstance(value, int | float) and abs(value) < _ABSURD else 0.0

"""How the counters of a plain checkpoint can be read, and which reading the optimizer and the scheduler bear out.

Units: a batch is one forward pass, an update one optimizer step. `epoch` is 1-based: `step == 0` says that it is complete,
`step > 0` that it is under way. Trainers that count finished epochs mean one epoch more when one is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_MOST_TOLERANCE = 20
_LEAST_INFERRED = 2


@dataclass(frozen=True, slots=True)
class Counters:
    """Valid counters, as recorded. `step` counts batches of an epoch where `total_batches` is known."""

    epoch: int | None = None
    step: int | None = None
    total_batches: int | None = None
    global_step: int | None = None
    accumulation: int | None = None


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who else counted: updates by the optimizer, steps of any kind by the scheduler."""

    updates: int | None = None
    last_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the counters.

    epoch:        1-based, the one under way or the one that is complete; None where batches per epoch are not known
    batches:      since the start of training
    accumulation: batches per update
    updates:      the fewest and the most updates that so many batches make: some trainers drop an epoch's last, partial
                  group of batches, some make an update of it
    note:         why it was preferred, where there was a choice
    """

    epoch: int | None
    batches: int
    accumulation: int
    updates: tuple[int, int]
    note: str | None = None

    @property
    def at_once(self) -> int:
        """Updates if accumulation never stops at the end of an epoch."""
        return self.batches // self.accumulation

    def expected(self, updates: int | None) -> int:
        """The number of updates in the range that is nearest to the optimizer's."""
        low, high = self.updates
        return self.at_once if updates is None else min(max(updates, low), high)

    def fits(self, count: int, tolerance: int) -> bool:
        """Whether a counter of updates or of batches agrees."""
        low, high = self.updates
        return low - tolerance <= count <= high + tolerance or abs(count - self.batches) <= tolerance


def reading(epoch: int | None, batches: int, total: int | None, accumulation: int, note: str | None = None) -> Reading:
    """A reading with the range of updates worked out."""
    whole, rest = divmod(batches, total) if total else (0, batches)
    a = accumulation
    fewest = min(batches // a, whole * ((total or 0) // a) + rest // a)
    most = max(-(-batches // a), whole * -(-(total or 0) // a) + -(-rest // a))
    return Reading(epoch, batches, a, (fewest, most), note)


def by_epochs(counters: Counters, witnesses: Witnesses) -> Reading:
    """The reading of epoch, step and batches per epoch; all three must be there."""
    epoch, step, total = counters.epoch or 0, counters.step or 0, counters.total_batches or 1
    accumulation = counters.accumulation or 1
    if step == 0:
        return _accumulated(counters, witnesses, [reading(epoch, epoch * total, total, accumulation)])
    finished = reading(epoch + 1, epoch * total + step, total, accumulation)
    if epoch == 0:
        return _accumulated(counters, witnesses, [finished])
    usual = reading(epoch, (epoch - 1) * total + step, total, accumulation)
    # The usual one first: where accumulation has to be guessed as well, it is the less daring guess.
    chosen = _accumulated(counters, witnesses, [usual, finished])
    if chosen.accumulation != accumulation or not _only_fit(finished, usual, counters, witnesses):
        return chosen
    note = (
        f"epoch {epoch} counts finished epochs: {finished.batches:,} batches agree with the other counters, "
        f"the {usual.batches:,} of the usual reading do not"
    )
    return reading(finished.epoch, finished.batches, total, accumulation, note)


def by_updates(counters: Counters, witnesses: Witnesses) -> Reading | None:
    """The reading of a counter that runs through all of training; None where there is none."""
    count = counters.global_step
    if count is None:
        count = _global_step(counters, witnesses)
    if count is None:
        return None
    plain = reading(None, count, None, 1)
    if counters.accumulation and counters.accumulation > 1 and witnesses.updates is not None:
        # With accumulation recorded, the counter may still count updates, as nanoGPT's does.
        accumulated = reading(None, count, None, counters.accumulation)
        return min(plain, accumulated, key=lambda r: abs(r.expected(witnesses.updates) - (witnesses.updates or 0)))
    return _accumulated(Counters(), witnesses, [plain])


def _global_step(counters: Counters, witnesses: Witnesses) -> int | None:
    """`step`, where it counts all of training: alone, or beside an epoch where the optimizer has counted the same."""
    step, updates = counters.step, witnesses.updates
    if step is None or counters.epoch is None:
        return step
    accumulated = reading(None, step, None, counters.accumulation or 1)
    return step if updates is not None and accumulated.fits(updates, 1) else None


def _only_fit(this: Reading, other: Reading, counters: Counters, witnesses: Witnesses) -> bool:
    """Whether some counter agrees with this reading alone, and none with the other alone."""
    tolerance = _tolerance(counters.total_batches or 1, this.accumulation)
    votes = [(this.fits(count, tolerance), other.fits(count, tolerance)) for count in _votes(counters, witnesses)]
    return any(a and not b for a, b in votes) and not any(b and not a for a, b in votes)


def _votes(counters: Counters, witnesses: Witnesses) -> Iterable[int]:
    epoch = counters.epoch or 0
    if witnesses.updates is not None:
        yield witnesses.updates
    if witnesses.last_epoch is not None and witnesses.last_epoch > epoch + 1:  # else it may count epochs
        yield witnesses.last_epoch
    if counters.global_step is not None:
        yield counters.global_step


def _tolerance(total: int, accumulation: int) -> int:
    """How far a counter may be off and still agree: less than half of what tells two readings apart."""
    return min(_MOST_TOLERANCE, max(1, total // accumulation // 4))


def _accumulated(counters: Counters, witnesses: Witnesses, readings: list[Reading]) -> Reading:
    """The first reading; with another accumulation where counters that don't know of each other insist on it."""
    updates = witnesses.updates
    if not updates or any(
        r.fits(updates, _tolerance(counters.total_batches or updates, r.accumulation)) for r in readings
    ):
        return _counting_updates(counters, readings, updates)
    if counters.accumulation or not _is_confirmed(updates, counters, witnesses):
        return readings[0]
    for r in readings:
        factor = round(r.batches / updates)
        guess = reading(r.epoch, r.batches, counters.total_batches, factor) if factor >= _LEAST_INFERRED else None
        if guess and guess.updates[0] - 1 <= updates <= guess.updates[1] + 1:
            note = (
                f"{factor} batches per optimizer update, inferred: {r.batches:,} batches, {updates:,} updates, "
                "and a second counter agrees with the updates"
            )
            return reading(r.epoch, r.batches, counters.total_batches, factor, note)
    return readings[0]


def _counting_updates(counters: Counters, readings: list[Reading], updates: int | None) -> Reading:
    """The first reading, or the same without accumulation where the recorded batches turn out to be updates."""
    first = readings[0]
    low, high = first.updates
    if first.accumulation == 1 or not updates or low - 1 <= updates <= high + 1:
        return first
    unit = reading(first.epoch, first.batches, counters.total_batches, 1)
    if not unit.fits(updates, 1):
        return first
    note = f"step and batches per epoch count optimizer updates: {updates:,} agree, accumulation of {first.accumulation} or not"
    return reading(first.epoch, first.batches, counters.total_batches, 1, note)


def _is_confirmed(updates: int, counters: Counters, witnesses: Witnesses) -> bool:
    second = witnesses.last_epoch if counters.global_step is None else counters.global_step
    return second is not None and abs(second - updates) <= 1

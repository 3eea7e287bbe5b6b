"""How the counters of a plain checkpoint can be read, and which reading the optimizer and the scheduler bear out.

Units: a batch is one forward pass, an update one optimizer step. `epoch` is 1-based: `step == 0` says that it is complete,
`step > 0` that it is under way. Trainers that count finished epochs mean one epoch more when one is under way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

_MOST_TOLERANCE = 20
_LEAST_INFERRED = 2


@dataclass(frozen=True, slots=True)
class Counters:
    """Valid counters, as recorded. `step` counts batches of an epoch where `total_batches` is known.

    ambiguous: whether `step` goes by a name, such as `iteration`, that may also count rounds of several updates
    """

    epoch: int | None = None
    step: int | None = None
    total_batches: int | None = None
    global_step: int | None = None
    accumulation: int | None = None
    ambiguous: bool = False


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

    def off(self, updates: int) -> int:
        """How many updates more or fewer than this reading allows."""
        return abs(self.expected(updates) - updates)

    def strictly_off(self, updates: int) -> int:
        """The same for trainers that treat all epochs alike: a partial group is always dropped, used or carried on."""
        return min(abs(updates - n) for n in (*self.updates, self.at_once))

    def fits(self, count: int, tolerance: int) -> bool:
        """Whether a counter of updates or of batches agrees."""
        return self.off(count) <= tolerance or abs(count - self.batches) <= tolerance


def reading(epoch: int | None, batches: int, total: int | None, accumulation: int, note: str | None = None) -> Reading:
    """A reading with the range of updates worked out."""
    whole, rest = divmod(batches, total) if total else (0, batches)
    a = accumulation
    fewest = min(batches // a, whole * ((total or 0) // a) + rest // a)
    most = max(-(-batches // a), whole * -(-(total or 0) // a) + -(-rest // a))
    return Reading(epoch, batches, a, (fewest, most), note)


def by_epochs(counters: Counters, witnesses: Witnesses) -> Reading:
    """The reading of epoch, step and batches per epoch; all three must be there."""
    usual, finished = _both(counters, counters.accumulation or 1)
    readings = [r for r in (usual, finished) if r is not None]
    if finished is not None and _only_fit(finished, usual, counters, witnesses):
        note = (
            f"epoch {counters.epoch} counts finished epochs: {finished.batches:,} batches agree with the other counters, "
            f"the {usual.batches:,} of the usual reading do not"
        )
        readings = [replace(finished, note=note)]
    first, updates = readings[0], witnesses.updates
    if not updates or first.off(updates) <= _tolerance(counters.total_batches or 1, first.accumulation):
        return first
    if counters.accumulation and counters.accumulation > 1:
        return _counting_updates(counters, updates) or first
    return _inferred(counters, witnesses, readings) or first


def _both(counters: Counters, accumulation: int) -> tuple[Reading, Reading | None]:
    """The usual reading and, where there is another, that of trainers that count finished epochs."""
    epoch, step, total = counters.epoch or 0, counters.step or 0, counters.total_batches or 1
    finished = reading(epoch + 1, epoch * total + step, total, accumulation)
    if step == 0:
        return reading(epoch, epoch * total, total, accumulation), None
    if epoch == 0:
        return finished, None
    return reading(epoch, (epoch - 1) * total + step, total, accumulation), finished


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
        return min(plain, accumulated, key=lambda r: r.off(witnesses.updates or 0))
    if not witnesses.updates or plain.off(witnesses.updates) <= _tolerance(count, 1):
        return plain
    return _inferred(Counters(), witnesses, [plain]) or plain


def _global_step(counters: Counters, witnesses: Witnesses) -> int | None:
    """`step`, where it counts all of training: alone, or beside an epoch where the optimizer has counted the same."""
    step, updates = counters.step, witnesses.updates
    if step is None:
        return None
    if counters.epoch is None:
        return None if counters.ambiguous and _counts_rounds(step, updates) else step
    accumulated = reading(None, step, None, counters.accumulation or 1)
    return step if updates is not None and accumulated.fits(updates, 1) else None


def _counts_rounds(step: int, updates: int | None) -> bool:
    """Whether every step stands for the same number of updates, as in reinforcement learning, or the other way round."""
    if not updates or not step or abs(updates - step) <= 1:
        return False
    return updates % step == 0 or updates % (step + 1) == 0 or step % updates == 0


def _only_fit(this: Reading, other: Reading, counters: Counters, witnesses: Witnesses) -> bool:
    """Whether some counter agrees with this reading alone, and none with the other alone."""
    tolerance = _tolerance(counters.total_batches or 1, this.accumulation)
    votes = [(this.fits(n, tolerance), other.fits(n, tolerance)) for n in _countings(counters, witnesses)]
    if witnesses.updates is not None:
        votes.append((this.off(witnesses.updates) <= tolerance, other.off(witnesses.updates) <= tolerance))
    return (True, False) in votes and (False, True) not in votes


def _countings(counters: Counters, witnesses: Witnesses) -> Iterator[int]:
    """Counters of batches or of updates, whichever."""
    if (
        witnesses.last_epoch is not None and witnesses.last_epoch > (counters.epoch or 0) + 1
    ):  # else it may count epochs
        yield witnesses.last_epoch
    if counters.global_step is not None:
        yield counters.global_step


def _tolerance(total: int, accumulation: int) -> int:
    """How far a counter may be off and still agree: less than half of what tells two readings apart."""
    return min(_MOST_TOLERANCE, max(1, total // accumulation // 4))


def _counting_updates(counters: Counters, updates: int) -> Reading | None:
    """The reading in which step and batches per epoch turn out to count updates, recorded accumulation or not."""
    found = next((r for r in _both(counters, 1) if r and r.off(updates) <= 1), None)
    note = f"step and batches per epoch count optimizer updates, of {counters.accumulation} batches each: {updates:,} agree"
    return replace(found, note=note) if found else None


def _inferred(counters: Counters, witnesses: Witnesses, readings: list[Reading]) -> Reading | None:
    """The reading in which every so many batches make an update, where a second counter says the same as the optimizer."""
    updates = witnesses.updates or 0
    second = witnesses.last_epoch if counters.global_step is None else counters.global_step
    if not updates or second is None or abs(second - updates) > 1:
        return None
    guesses = [
        reading(r.epoch, r.batches, counters.total_batches, round(r.batches / updates))
        for r in readings
        if r.batches > updates
    ]
    fitting = [g for g in guesses if g.accumulation >= _LEAST_INFERRED and g.strictly_off(updates) <= 1]
    if not fitting:
        return None
    found = min(fitting, key=lambda g: g.strictly_off(updates))
    note = (
        f"{found.accumulation} batches per optimizer update, inferred: {found.batches:,} batches, {updates:,} updates, "
        "and a second counter agrees with the updates"
    )
    return replace(found, note=note)

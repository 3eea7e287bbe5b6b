"""The counters of Lightning's loops, from which it restores; `epoch` and `global_step` at the top are for other readers.

A counter of a loop runs through ready, started, processed, completed. In a healthy file `completed` is one behind `ready`
where the file was written before the loop's end, and `processed` is one behind where it was written during a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ckpt_rules import Contradiction, Severity, is_count

_FIT = "loops.fit_loop"
LOADERS = f"{_FIT}.state_dict.combined_loader"
_ORDER = ("ready", "started", "processed", "completed")


@dataclass(frozen=True, slots=True)
class Counter:
    """One loop's counters, those that are not counts left out, and the key that they lie under."""

    key: str
    counts: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)


@dataclass(frozen=True, slots=True)
class Loops:
    """The progress of `fit`.

    epochs:  of all training, the one under way included in `ready`; begun: the same, restarts of the first batch counted too
    batches: of the epoch; total: of all training
    updates: optimizer steps by automatic optimization; manual: by manual optimization, of all optimizers together
    scheduled: steps of all schedulers together, but for those that the module makes itself
    at_end:  whether the last batch of the epoch was the last to be fetched
    loaders: the states of the data loaders that keep one
    """

    epochs: Counter
    begun: Counter
    batches: Counter
    total: Counter
    updates: Counter
    manual: Counter
    scheduled: Counter
    at_end: bool
    loaders: tuple[object, ...]

    @property
    def epoch_complete(self) -> bool:
        """Whether a resume starts the next epoch."""
        return self.at_end and self.batches["processed"] >= self.batches["ready"] > 0

    @property
    def ended(self) -> bool:
        """Whether `fit` had ended, so that the epoch counts as complete however far it was."""
        return self.epochs["ready"] > 0 and self.epochs["completed"] >= self.epochs["ready"]


def read_loops(state: Mapping[object, object]) -> Loops | None:
    """The loops of a checkpoint; None where it has none, or none that make sense."""
    fit = _inside(_inside(state, "loops"), "fit_loop")
    if not isinstance(fit.get("epoch_progress"), Mapping):
        return None
    optimizer = _inside(_inside(fit, "epoch_loop.automatic_optimization.optim_progress"), "optimizer")
    progress = _inside(fit, "epoch_loop.batch_progress")
    return Loops(
        epochs=_counter(fit, "epoch_progress", "current"),
        begun=_counter(fit, "epoch_progress", "total"),
        batches=_counter(fit, "epoch_loop.batch_progress", "current"),
        total=_counter(fit, "epoch_loop.batch_progress", "total"),
        updates=_counter(optimizer, "step", "total", "epoch_loop.automatic_optimization.optim_progress.optimizer"),
        manual=_counter(fit, "epoch_loop.manual_optimization.optim_step_progress", "total"),
        scheduled=_counter(fit, "epoch_loop.scheduler_progress", "total"),
        at_end=progress.get("is_last_batch") is True,
        loaders=tuple(kept) if isinstance(kept := _inside(fit, "state_dict").get("combined_loader"), list) else (),
    )


def _counter(values: Mapping[object, object], name: str, part: str, above: str = "") -> Counter:
    counts = _inside(_inside(values, name), part)
    key = ".".join(filter(None, (_FIT, above, name, part)))
    return Counter(key, {n: int(v) for n in _ORDER if is_count(v := counts.get(n)) and not isinstance(v, bool)})


def _inside(values: Mapping[object, object], name: str) -> Mapping[object, object]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def contradictions(path: str, state: Mapping[object, object], loops: Loops) -> Iterator[Contradiction]:
    """Counters that Lightning never writes beside each other."""
    for counter in (loops.epochs, loops.begun, loops.batches, loops.total):
        if fault := _out_of_order(counter):
            yield Contradiction(path, counter.key, fault)
    if fault := _out_of_step(loops.total, loops.batches):
        yield Contradiction(path, loops.total.key, fault)
    if loops.begun.counts and loops.begun["ready"] < loops.epochs["ready"]:
        words = (
            f"{loops.begun['ready']:,} epochs were started in total, but the current epoch is number "
            f"{loops.epochs['ready']:,}"
        )
        yield Contradiction(path, loops.begun.key, words)
    if loops.total["ready"] < loops.batches["ready"]:
        more, fewer = loops.batches["ready"], loops.total["ready"]
        yield Contradiction(
            path, loops.total.key, f"{fewer:,} batches were fetched in total, but {more:,} in this epoch alone"
        )
    elif loops.epochs["ready"] == 1 and loops.total["ready"] != loops.batches["ready"]:
        words = (
            f"{loops.total['ready']:,} batches were fetched in all and {loops.batches['ready']:,} in the first epoch"
        )
        yield Contradiction(path, loops.total.key, f"{words}, which is still under way")
    yield from _one_too_many(path, loops)
    yield from _tops(path, state, loops)


def _one_too_many(path: str, loops: Loops) -> Iterator[Contradiction]:
    """A resume at the end of an epoch that trained one more batch of the epoch that was complete."""
    length, finished = loops.batches["ready"], loops.epochs["ready"] - 1
    before = loops.total["ready"] - length
    if loops.epoch_complete and finished > 0 and before == finished * length + 1:
        words = (
            f"{loops.total['ready']:,} batches were fetched in {finished + 1:,} epochs, of which the last had {length:,}: a "
            "resume has trained one batch too many, unless epochs differ in length"
        )
        yield Contradiction(path, loops.total.key, words, Severity.WARNING)


def _out_of_order(counter: Counter) -> str | None:
    ready = counter["ready"]
    known = [name for name in _ORDER if name in counter.counts]
    for before, name in pairwise(known):
        if not ready - 1 <= counter[name] <= ready:
            return f"{name} is {counter[name]:,} but ready is {ready:,}; it should be the same, or one less"
        if counter[name] > counter[before]:
            return f"{name} is {counter[name]:,} where {before} is {counter[before]:,}, which is counted first"
    return None


def _out_of_step(total: Counter, current: Counter) -> str | None:
    """What counts of all batches and of this epoch's can't both be: each is counted in both at once.

    A restart within a batch begins that batch again, so that what comes first may be counted more often in all.
    """
    known = [name for name in _ORDER if name in total.counts and name in current.counts]
    for before, name in pairwise(known):
        earlier = total[name] - current[name]
        if earlier > total[before] - current[before]:
            words = (
                f"of earlier epochs {earlier:,} batches were {name}, and {total[before] - current[before]:,} {before}"
            )
            return f"{words}: the total counts and those of this epoch disagree"
    return None


def _tops(path: str, state: Mapping[object, object], loops: Loops) -> Iterator[Contradiction]:
    """What the top says otherwise, which Lightning does not read: others may."""
    for name in ("epoch", "global_step"):
        value = state.get(name)
        if value is not None and not agrees(name, value, loops):
            count, key = of_loops(name, loops)
            began = (
                f"the loop is in epoch {count:,}" if name == "epoch" else f"{count:,} optimizer steps were completed"
            )
            said = f"{int(value):,}" if is_count(value) else repr(value)[:40]
            words = f"{name} is {said}, which Lightning does not read; by {key}, from which it restores, {began}"
            yield Contradiction(path, name, words, Severity.INFO)


def agrees(name: str, value: object, loops: Loops) -> bool:
    """Whether `epoch`, counted from 0, or `global_step` at the top is what the loops say."""
    if not is_count(value) or isinstance(value, bool):
        return False
    if name == "epoch":
        return loops.epochs["ready"] - 1 <= value <= loops.epochs["ready"]
    return value == of_loops(name, loops)[0]


def of_loops(name: str, loops: Loops) -> tuple[int, str]:
    """The same by the loops, and the key that it lies under there."""
    if name == "epoch":
        return max(loops.epochs["ready"] - 1, 0), f"{loops.epochs.key}.ready"
    source = loops.updates if loops.updates["completed"] else loops.manual
    return source["completed"], f"{source.key}.completed"

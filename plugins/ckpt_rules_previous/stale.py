"""previous/stale-state: the optimizer's or the data loader's state is that of the save before, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ckpt_rules import Checkpoint, FactUnavailable, LoaderState, Place, Problem, Rule, TensorInfo
from ckpt_rules_previous.saves import Counter, called, had_rate, maybe, progress_counters, updates

_SMALLEST = 16
"""Bytes of a storage that says something: a counter may well stand still."""

_ENOUGH = 1.5
"""Updates that must have been due: an epoch may end with one that gathers fewer gradients."""


class StaleState(Rule):
    """Steps were made since the previous save, but optimizer, weights or dataloader are the same, bit for bit.

    ## What it checks
    If the counters show that steps were made since the previous save, what the file headers record: the CRC-32 that a
    torch file keeps of each tensor, and the batches that a dataloader has counted within an epoch. Not all tensors of
    the optimizer may be unchanged along with its update count, nor all weights (unless the learning rate may have been
    zero), nor the position in the data. Nothing is reported if there were too few steps for an update under gradient
    accumulation. Files without checksums are compared by `previous/unchanged`, which reads every byte.

    ## Why it matters
    The save wrote an object that is not the one being trained, or a file of the previous save was copied. A resume then
    pairs new weights with an old optimizer, or trains on the same data again.

    ## How to repair
    Resume from the previous save, which is consistent, and check which object the save code writes.
    """

    id = "previous/stale-state"
    tags = frozenset({"history", "previous", "resume"})
    compares = True

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each part of the state."""
        steps = steps_by_progress(checkpoint)
        name = called(checkpoint.previous)
        for what, find in PARTS.items():
            path, same = identical(find, checkpoint) if may_have_changed(what, checkpoint, steps) else ("", 0)
            if same:
                yield Problem(
                    message=f"{steps:,} steps were made since {name}, but all {same:,} tensors of the {what} are "
                    "unchanged (same CRC-32)",
                    place=Place(path=path),
                    help=f"resume from {name}, and check which object the save code writes",
                    data={"which": what, "tensors": same, "steps": steps, "previous": name},
                )
        yield from _of_loaders(checkpoint, name, steps)


def steps_by_progress(checkpoint: Checkpoint) -> int:
    """Steps made since the earlier save, as the trainer counts them; FactUnavailable where it does not say, or none were."""
    counters = [c for c in progress_counters(checkpoint) if c.name != "epoch"]
    if not counters:
        raise FactUnavailable("no counter says whether training continued between the two saves")
    made = counters[0].after - counters[0].before
    if made <= 0:
        raise FactUnavailable("no step was made between the two saves")
    each = _steps_of_an_update(checkpoint, counters[0])
    if each > 1 and made < _ENOUGH * each:
        raise FactUnavailable("the steps between the two saves may be too few for an update of the optimizer")
    return int(made)


def _steps_of_an_update(checkpoint: Checkpoint, counter: Counter) -> float:
    """Steps to an update of the optimizer, where the trainer counts batches and gathers the gradients of several."""
    done = updates(checkpoint.previous)
    return max(counter.before / done, 1.0) if done and counter.before > done else 1.0


def may_have_changed(what: str, checkpoint: Checkpoint, steps: int) -> bool:
    """Whether it is of the kind that steps change: weights stay as they are at a learning rate of zero.

    An optimizer that has counted updates since is not that of the save before.
    """
    if what == "weights":
        return had_rate(checkpoint, steps)
    before, after = updates(checkpoint.previous), updates(checkpoint)
    return before is None or after is None or after <= before


Sums = dict[tuple[str, object], tuple[int, int]]
"""Size and CRC-32 of each storage, by the path of its file and a name that both saves share."""


def _of_optimizers(checkpoint: Checkpoint) -> Sums:
    found: Sums = {}
    for number, optimizer in enumerate(maybe(lambda: checkpoint.optimizers) or ()):
        tensors = (
            ((number, str(key), name), tensor)
            for key, state in optimizer.states.items()
            for name, tensor in state.tensors.items()
        )
        found |= _sums(checkpoint, optimizer.path, tensors)
    return found


def _of_weights(checkpoint: Checkpoint) -> Sums:
    found: Sums = {}
    for file in (maybe(lambda: checkpoint.weights.files)) or ():
        if file.format == "torch":
            found |= _sums(checkpoint, file.path, file.tensors.items())
    return found


def _sums(checkpoint: Checkpoint, path: str, tensors: Iterable[tuple[object, TensorInfo]]) -> Sums:
    """What the directory of a torch zip file says of these tensors' storages; nothing for files of another kind."""
    archive = maybe(lambda: checkpoint.files.archive(path))
    if archive is None or archive.problems:
        return {}
    by_offset = {e.offset: (e.nbytes, e.crc) for e in archive.entries if e.crc and e.stored and e.nbytes >= _SMALLEST}
    return {(path, name): by_offset[t.offset] for name, t in tensors if t.offset is not None and t.offset in by_offset}


PARTS = {"optimizer": _of_optimizers, "weights": _of_weights}


def identical(find: Callable[[Checkpoint], Sums], checkpoint: Checkpoint) -> tuple[str, int]:
    """The first path and the number of tensors, where both saves hold the same ones and none changed."""
    now = find(checkpoint)
    if not now or now != find(checkpoint.previous):
        return "", 0
    return next(iter(now))[0], len(now)


def _of_loaders(checkpoint: Checkpoint, name: str, steps: int) -> Iterator[Problem]:
    """Counts of batches that stood still while the trainer's own place in the epoch moved."""
    now, before = maybe(lambda: checkpoint.dataloaders), maybe(lambda: checkpoint.previous.dataloaders)
    if now is None or before is None or not now.position or not before.position or now.position == before.position:
        return
    was = {(s.path, s.key): s for s in before.states}
    counted = [s for s in now.states if s.batches is not None]
    if counted and all(_stood_still(s, was.get((s.path, s.key))) for s in counted):
        first = counted[0]
        yield Problem(
            message=f"{steps:,} steps were made since {name}, but the dataloader has still given {first.batches} "
            "batches, "
            f"although {now.position:,} batches of the epoch are done",
            place=Place(path=first.path, key=first.key or None),
            help=f"resume from {name}, or make the script skip the batches that were already trained",
            data={
                "which": "data",
                "position": now.position,
                "before": before.position,
                "steps": steps,
                "previous": name,
            },
        )


def _stood_still(now: LoaderState, was: LoaderState | None) -> bool:
    return was is not None and was.batches is not None and was.batches == now.batches

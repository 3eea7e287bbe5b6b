"""progress/dataloader: whether the data continue where training does."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import (
    Checkpoint,
    DataLoaders,
    FactUnavailable,
    LoaderState,
    Place,
    Problem,
    Recorded,
    Rule,
    Severity,
    is_count,
    plain,
)
from ckpt_rules_training.words import count, inside, listed, shown

_MOST_RANKS = 1_000_000
_AGAIN = "they start again from the beginning of the data"
_HELP = "resume from another save, or make the script skip the batches that were already trained"


class DataLoaderPosition(Rule):
    """The dataloader's state does not match the training progress.

    ## What it checks
    Dataloader states in the checkpoint. If each data-parallel rank has its own (torchtitan's `dataloader.dp_rank_0`,
    Megatron's `train_dataloader_dprank000.pt`): that there is one for each of the recorded number of ranks, and no
    others. If states are kept outside the saves, in one directory per save: that this save has one if other saves do.
    Within an epoch: that not all loaders have reached their end, and that they have given any batches. That batch
    counts are valid. Nothing is reported if a trainer keeps no such state; the resume plan says what it does then.

    ## Why it matters
    A loader that had finished starts its data again, and so does a rank whose state is missing, silently in most
    trainers: some samples are trained twice in this epoch, others not at all, and a curriculum or a stream begins
    again.

    ## How to repair
    Resume with as many data-parallel ranks as wrote the save, from a save with complete dataloader states; or
    deliberately restart the epoch.
    """

    id = "progress/dataloader"
    severity = Severity.WARNING
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for ranks without a state, one for ranks too many, and one for loaders that stand elsewhere."""
        loaders = checkpoint.dataloaders
        if loaders.elsewhere and not loaders.states:
            yield _of_other_saves(loaders.elsewhere, loaders.stops)
            return
        if not loaders.states:
            raise FactUnavailable("no dataloader state was saved")
        if loaders.world is not None:
            yield from _of_ranks(loaders, loaders.world)
        else:
            yield from _gaps(loaders)
        for state in loaders.states:
            if state.batches is not None and not is_count(plain(state.batches)):
                yield _no_count(state)
        if loaders.position:
            yield from _of_position(loaders, loaders.position)


def _of_ranks(loaders: DataLoaders, world: Recorded) -> Iterator[Problem]:
    size, found = plain(world.value), {s.rank: s for s in loaders.states if s.rank is not None}
    if not is_count(size) or not 0 < size < _MOST_RANKS:
        return
    missing = [rank for rank in range(int(size)) if rank not in found]
    beyond = sorted(rank for rank in found if rank >= size)
    said = f"'{world.key}' in {world.path} says {count(int(size), 'rank')}"
    severity = Severity.ERROR if loaders.stops else None
    if missing:
        yield Problem(
            message=f"there is no dataloader state for {_ranks(missing)}, but {said}: {loaders.stops or _AGAIN}",
            place=Place(path=world.path, key=world.key),
            help="resume from a save that has the state of every rank, or expect these ranks to see some data twice",
            severity=severity,
            data={"missing": missing[:1000], "world_size": int(size)},
        )
    if beyond:
        state = found[beyond[0]]
        stops = f": {loaders.stops}" if loaders.stops else ""
        yield Problem(
            message=f"there is dataloader state for {_ranks(beyond)}, but {said}{stops}",
            place=Place(path=state.path, key=state.key or None),
            help="the states come from two saves: resume from a directory that contains only one save",
            severity=severity,
            data={"beyond": beyond[:1000], "world_size": int(size)},
        )


def _gaps(loaders: DataLoaders) -> Iterator[Problem]:
    """Ranks below the highest that have no state, where nothing says how many ranks there were."""
    found = {s.rank: s for s in loaders.states if s.rank is not None}
    highest = max(found, default=0)
    missing = [rank for rank in range(min(highest, _MOST_RANKS)) if rank not in found]
    if missing:
        yield Problem(
            message=f"there is no dataloader state for {_ranks(missing)}, although there is one for rank {highest:,}: "
            f"{loaders.stops or _AGAIN}",
            place=Place(path=found[highest].path, key=found[highest].key or None),
            help="resume from a save that has the state of every rank, or expect these ranks to see some data twice",
            severity=Severity.ERROR if loaders.stops else None,
            data={"missing": missing[:1000], "world_size": None},
        )


def _of_other_saves(folder: str, stops: str | None) -> Problem:
    return Problem(
        message=f"{folder} has no dataloader state for this save, although it has some for other saves: "
        f"{stops or 'the data starts again from the beginning'}",
        place=Place(path=folder),
        help="copy the states from where the save was written, or expect some data to be trained twice",
        severity=Severity.ERROR if stops else None,
        data={"folder": folder},
    )


def _ranks(ranks: list[int]) -> str:
    return f"rank{'' if len(ranks) == 1 else 's'} {listed(ranks)}"


def _no_count(state: LoaderState) -> Problem:
    return Problem(
        message=f"the dataloader has given {shown(state.batches)} batches, which is not a count",
        place=Place(path=state.path, key=state.key or None),
        help=_HELP,
        data={"batches": str(state.batches)},
    )


def _of_position(loaders: DataLoaders, position: int) -> Iterator[Problem]:
    """At most one problem: a loader by itself may well have ended, such as that of an evaluation."""
    first = loaders.states[0]
    given = [int(n) for s in loaders.states if is_count(n := plain(s.batches))]
    within = (
        f"although {count(position, 'batch')} of the epoch {'is' if position == 1 else 'are'} done and the epoch is "
        "not over"
    )
    if all(state.finished for state in loaders.states):
        yield Problem(
            message=f"the dataloader has reached its end, {within}: it starts again from the beginning of the data",
            place=Place(path=first.path, key=inside(first.key, "_iterator_finished")),
            help=_HELP,
            data={"position": position, "batches": given},
        )
    elif len(given) == len(loaders.states) and not any(given):
        yield Problem(
            message=f"the dataloader has given no batches, {within}: it starts again from the beginning of the data",
            place=Place(path=first.path, key=first.key or None),
            help=_HELP,
            data={"position": position, "batches": given},
        )

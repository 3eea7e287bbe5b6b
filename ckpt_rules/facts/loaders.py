"""What data loaders kept of their position."""

from __future__ import annotations

from dataclasses import dataclass

from ckpt_rules.facts.training import Recorded


@dataclass(frozen=True, slots=True)
class LoaderState:
    """The state of one data loader, or of one rank's.

    path, key: where it is stored
    batches:   that it has given in its epoch, as stored; None where it does not say
    finished:  whether its epoch was over; None where it does not say
    rank:      the data-parallel rank that it belongs to; None where all share it
    """

    path: str
    key: str
    batches: object = None
    finished: bool | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class DataLoaders:
    """Every data loader that kept its state.

    world:    how many ranks there were, each with a state of its own; None where they are not distinguished
    position: batches done in the epoch under way, where the trainer's own counters say that it is under way; else None
    stops:    what a resume does where ranks have no state or there are states of others, one sentence without a full stop,
              where it does not merely start the data again
    elsewhere: a directory that holds the states of other saves and none of this one; None where there is no such
    """

    states: tuple[LoaderState, ...]
    world: Recorded | None = None
    position: int | None = None
    stops: str | None = None
    elsewhere: str | None = None

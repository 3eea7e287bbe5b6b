"""What several ranks wrote: the files of each, the number of ranks on record, and the step that each says it was at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_rules.facts.training import Recorded, is_count
from ckpt_rules.finding import Severity


@dataclass(frozen=True, slots=True)
class RankFiles:
    """A family of files of which each rank writes one.

    what:     what one of them holds, with its article: `the random-number state`
    template: its path, `{}` standing for the rank
    paths:    those that are there, by rank, counted from 0
    why:      what happens where one is missing, one sentence without a full stop
    severity: of a missing one: an error or a warning where a resume goes wrong without it, information where it may, None
              where it does not
    expected: ranks that write one, where that is not the world size
    first:    the lowest rank that writes one here, where each node keeps its own files
    """

    what: str
    template: str
    paths: Mapping[int, str]
    why: str
    severity: Severity | None = Severity.ERROR
    expected: int | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks that took part in a save.

    world_sizes: every place that records how many ranks (or data-parallel ranks) there were
    families:    the files that each of them wrote
    steps:       every place in a rank's own file that records the training step, all at the same moment
    """

    world_sizes: tuple[Recorded, ...] = ()
    families: tuple[RankFiles, ...] = ()
    steps: tuple[Recorded, ...] = ()

    @property
    def world_size(self) -> int | None:
        """The number of ranks on record; None where nothing records it, or two places disagree."""
        sizes = {int(r.value) for r in self.world_sizes if is_count(r.value) and r.value}
        return sizes.pop() if len(sizes) == 1 else None

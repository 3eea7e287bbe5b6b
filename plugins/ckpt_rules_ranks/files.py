"""ranks/missing-file: a rank whose file is not there."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, RankFiles, Rule

_SHOWN = 5


class MissingFile(Rule):
    """A rank's file is missing.

    ## What it checks
    For each kind of file that every rank writes (optimizer shards, random-number states, model states): there is a file
    for each rank from 0 up, as many as the checkpoint records; if it records no number, up to the highest rank found.
    If each node keeps only the files of its own ranks (`save_on_each_node`), the same for those ranks.

    ## Why it matters
    A rank died before it saved, or its node's disk was not copied. Often only that rank fails to load, while the others
    wait for it in a collective operation until they time out.

    ## How to repair
    Copy the file from the disk of the node where the rank ran, or resume from an earlier save.
    """

    id = "ranks/missing-file"
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each kind that lacks a file."""
        ranks = checkpoint.ranks
        for family in ranks.families:
            count = family.expected or ranks.world_size or max(family.paths, default=-1) + 1
            missing = [rank for rank in range(family.first, count) if rank not in family.paths]
            if missing and family.severity is not None:
                yield _problem(family, missing, count)


def _problem(family: RankFiles, missing: list[int], count: int) -> Problem:
    path = family.template.format(missing[0])
    which = f"rank{'' if len(missing) == 1 else 's'} {', '.join(map(str, missing[:_SHOWN]))}"
    more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
    return Problem(
        message=f"{path} is missing: {family.what} of {which}{more} of {count:,} {'is' if len(missing) == 1 else 'are'} "
        f"not there; {family.why}",
        place=Place(path=path),
        help="copy it from the disk of the node where the rank ran, or resume from an earlier save",
        severity=family.severity,
        data={"missing": missing[:1000], "world_size": count},
    )

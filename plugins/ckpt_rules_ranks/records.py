"""ranks/world-size and ranks/mixed-steps: what the files of several ranks record, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, RankFiles, Recorded, Rule, is_count, plain

_SHOWN = 3


class WorldSize(Rule):
    """The recorded number of ranks is not the number of ranks that wrote files.

    ## What it checks
    All places that record a world size agree, and there is no file from a rank beyond it. (A missing rank file is
    reported by ranks/missing-file.)

    ## Why it matters
    Two saves by different numbers of ranks are in one directory: a later save by fewer ranks leaves the other files in
    place. Loaders that read whatever matches combine half of one save with half of another.

    ## How to repair
    Delete the files of the save that you do not need (the modification times show which they are), or resume from a
    directory into which only one save was written.
    """

    id = "ranks/world-size"
    tags = frozenset({"files", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for records that disagree, one for each kind of file with ranks beyond the world size."""
        ranks = checkpoint.ranks
        sizes = [r for r in ranks.world_sizes if is_count(r.value) and r.value]
        if not sizes:
            raise FactUnavailable("the number of ranks is not recorded")
        if ranks.world_size is None:
            yield _disagreement(sizes)
            return
        for family in ranks.families:
            count = family.expected or ranks.world_size
            beyond = sorted(rank for rank in family.paths if rank >= count)
            if beyond:
                yield _beyond(family, beyond, count, sizes[0])


def _disagreement(sizes: list[Recorded]) -> Problem:
    usual = Counter(r.value for r in sizes).most_common(1)[0][0]
    odd = next(r for r in sizes if r.value != usual)
    agrees = next(r for r in sizes if r.value == usual)
    return Problem(
        message=f"{odd.path} records {odd.value} ranks in '{odd.key}', and {agrees.path} {usual} in '{agrees.key}'",
        place=Place(path=odd.path, key=odd.key),
        help="the files come from two saves: resume from a directory into which only one was written",
        data={"world_sizes": {r.path: r.value for r in sizes[:1000]}},
    )


def _beyond(family: RankFiles, beyond: list[int], count: int, record: Recorded) -> Problem:
    path = family.paths[beyond[0]]
    return Problem(
        message=f"{path} belongs to rank {beyond[0]}, but {record.path} records {count:,} rank{'' if count == 1 else 's'} "
        f"in '{record.key}': it is left over from another save",
        place=Place(path=path),
        help="delete the files of the save that you do not need, or resume from another directory",
        data={"beyond": beyond[:1000], "world_size": count},
    )


class MixedSteps(Rule):
    """Files of one save record different steps.

    ## What it checks
    The training step recorded in each rank's file is the same for all ranks.

    ## Why it matters
    Some ranks had already overwritten an older save when the job was killed. The loaded model silently mixes two steps.

    ## How to repair
    Resume from an earlier save whose files all record the same step.
    """

    id = "ranks/mixed-steps"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem, at the first file of the step that fewest record."""
        steps = [r for r in checkpoint.ranks.steps if is_count(plain(r.value))]
        if len(steps) < 2:
            raise FactUnavailable("no two files of ranks record a step")
        counted = Counter(int(plain(r.value)) for r in steps)  # type: ignore[call-overload]
        if len(counted) > 1:
            usual, rare = counted.most_common()[0][0], counted.most_common()[-1][0]
            odd = next(r for r in steps if plain(r.value) == rare)
            said = ", ".join(f"{n:,} at step {step:,}" for step, n in counted.most_common(_SHOWN))
            yield Problem(
                message=f"the rank files were saved at different steps: {said}, of {len(steps):,} files; "
                f"{odd.path} says {rare:,} but most say {usual:,}",
                place=Place(path=odd.path, key=odd.key),
                help="resume from an earlier save whose files all record the same step",
                data={"steps": {str(step): n for step, n in sorted(counted.items())}},
            )

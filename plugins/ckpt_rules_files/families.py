"""Numbered files that belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, conventions

_SHOWN = 5


class IncompleteFamily(Rule):
    """A numbered set of files has gaps, or mixes two sets.

    ## What it checks
    Shards `name-00001-of-00003` that no index describes: every number exists once, and all agree on the count. Files of
    ranks, `rng_state_0` and `random_states_0`: no number below the highest is missing. Shards listed in an index are
    checked by weights/missing-shard and weights/unindexed.

    ## Why it matters
    A rank died while saving, a copy missed some files, or two saves with different numbers of shards are in one
    directory. Loaders that read whatever files match silently load half a model.

    ## How to repair
    Copy the missing files from where the save was written; remove the files of the other save.
    """

    id = "files/incomplete-family"
    tags = frozenset({"files", "load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each set with gaps, one for each name with several counts."""
        shards: dict[tuple[str, str, str], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        ranks: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        counted = _of_known_ranks(checkpoint)
        for entry in checkpoint.listing.files():
            if m := conventions.weight_files.SHARD.fullmatch(entry.name):
                shards[entry.parent, m["stem"], m["suffix"]][int(m["count"])].append(int(m["number"]))
            elif (m := conventions.state_files.RNG_OF_RANK.fullmatch(entry.name)) and entry.path not in counted:
                ranks[entry.parent, m["stem"], m["suffix"]].append(int(m["number"]))
        for (parent, stem, suffix), counts in sorted(shards.items()):
            if checkpoint.listing.get(_join(parent, f"{stem}.{suffix}.index.json")) is None:
                yield from _shards(_join(parent, stem), suffix, counts)
        for (parent, stem, suffix), numbers in sorted(ranks.items()):
            # Node-local disks hold the ranks of one node: 8 to 15 of the second.
            first = min(numbers) if min(numbers) % len(numbers) == 0 else 0
            missing = sorted(set(range(first, max(numbers))) - set(numbers))
            if missing:
                path = _join(parent, f"{stem}_{missing[0]}.{suffix}")
                yield _holes(path, missing, f"ranks of {stem}_*.{suffix}", max(numbers) + 1)


def _of_known_ranks(checkpoint: Checkpoint) -> set[str]:
    """Files of ranks that the layout knows how to count: ranks/missing-file reports on those."""
    try:
        return {path for family in checkpoint.ranks.families for path in family.paths.values()}
    except FactUnavailable:
        return set()


def _shards(stem: str, suffix: str, counts: dict[int, list[int]]) -> Iterator[Problem]:
    if len(counts) > 1:
        families = " and ".join(f"{len(n)} of {count}" for count, n in sorted(counts.items()))
        yield Problem(
            message=f"{stem}-*.{suffix} mixes shards of {len(counts)} saves: {families}",
            place=Place(path=f"{stem}-{min(counts[min(counts)]):05d}-of-{min(counts):05d}.{suffix}"),
            help="remove the shards of the older save",
            data={"counts": sorted(counts)},
        )
        return
    ((count, numbers),) = counts.items()
    first = 0 if 0 in numbers else 1
    missing = sorted(set(range(first, count + first)) - set(numbers))
    if missing:
        yield _holes(f"{stem}-{missing[0]:05d}-of-{count:05d}.{suffix}", missing, f"shards of {stem}-*.{suffix}", count)


def _holes(path: str, missing: Sequence[int], what: str, count: int) -> Problem:
    more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
    return Problem(
        message=f"{len(missing):,} of {count:,} {what} missing: {', '.join(map(str, missing[:_SHOWN]))}{more}",
        place=Place(path=path),
        help="copy the missing files from where the save was written, or resume from an earlier save",
        data={"missing": list(missing[:1000]), "count": count},
    )


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name

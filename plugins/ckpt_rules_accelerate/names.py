"""How Accelerate names its files: `optimizer.bin`, `optimizer_1.bin`, `random_states_0.pkl`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, FactUnavailable, conventions

RANDOM = conventions.state_files.ACCELERATE_RNG
NUMBERED = re.compile(
    r"(?P<stem>model|pytorch_model|optimizer|scheduler|custom_checkpoint|dl_state_dict)(?:_(?P<number>\d{1,3}))?\.(?P<suffix>\w+)"
)


def first_of_node(found: Mapping[int, str]) -> int:
    """With `save_on_each_node` the second node of eight ranks holds 8 to 15, each of them; else all are counted from 0."""
    first, count = min(found, default=0), len(found)
    whole = count > 1 and first % count == 0 and max(found) - first + 1 == count
    return first if whole else 0


def random_states(checkpoint: Checkpoint) -> dict[int, str]:
    """The file of each rank's random-number states."""
    found = ((RANDOM.fullmatch(e.path), e.path) for e in checkpoint.listing)
    return {int(match["rank"]): path for match, path in found if match}


def numbered(checkpoint: Checkpoint, stem: str) -> list[str]:
    """Files of one kind at the top, in the order of their numbers; the first has none."""
    found = {}
    for entry in checkpoint.listing.files(top_only=True):
        match = NUMBERED.fullmatch(entry.path)
        if match and match["stem"] == stem:
            found[int(match["number"] or 0)] = entry.path
    return [found[n] for n in sorted(found)]


def numbers_of(paths: list[str]) -> list[int]:
    """The numbers in these names."""
    return [int(m["number"] or 0) for path in paths if (m := NUMBERED.fullmatch(path))]


def only(checkpoint: Checkpoint, stem: str) -> str:
    """The one file of a kind; FactUnavailable where there is none, or several."""
    paths = numbered(checkpoint, stem)
    if len(paths) != 1 or numbers_of(paths) != [0]:
        many = (
            f"there are {len(paths):,} {stem}s, and nothing says which is meant" if paths else f"there is no {stem}.bin"
        )
        raise FactUnavailable(many)
    return paths[0]

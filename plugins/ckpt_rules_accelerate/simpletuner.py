"""SimpleTuner's position in the data, of which each rank keeps one beside what accelerate saves.

https://github.com/bghira/SimpleTuner/blob/main/simpletuner/helpers/training/save_hooks.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ckpt_rules import Checkpoint, FactUnavailable, RankFiles, Severity

_FIRST = "training_state.json"  # the first rank's name has no number
_OTHERS = re.compile(r"training_state-rank(\d+)\.json")
_KEYS = frozenset({"exhausted_backends", "repeats", "global_step"})


def data_positions(checkpoint: Checkpoint, ranks: int) -> tuple[RankFiles, ...]:
    """The family of these files; none where the first is not SimpleTuner's."""
    try:
        found = checkpoint.files.contents(_FIRST)
    except FactUnavailable:
        return ()
    if not (isinstance(found, Mapping) and found.keys() >= _KEYS):
        return ()
    others = ((_OTHERS.fullmatch(e.path), e.path) for e in checkpoint.listing)
    family = RankFiles(
        "the position in the data",
        "training_state-rank{}.json",
        {0: _FIRST, **{int(match[1]): path for match, path in others if match}},
        "SimpleTuner starts that rank again at the beginning of its data, silently",
        Severity.WARNING,
        expected=ranks,
    )
    return (family,)

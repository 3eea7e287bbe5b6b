"""The files that the ranks of one save wrote: whether all exist, and whether they agree."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The rules of the family `ranks` that hold for every layout."""
    from ckpt_rules_ranks.files import MissingFile
    from ckpt_rules_ranks.records import MixedSteps, WorldSize

    return [MissingFile, WorldSize, MixedSteps]

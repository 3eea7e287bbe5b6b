"""What a checkpoint must be before it is handed to others."""

from __future__ import annotations

from ckpt_rules import Rule, hookimpl


@hookimpl
def ckpt_rules_rules() -> list[type[Rule]]:
    """The family `publish`, which only the ruleset of that name selects; and what every load needs beside the weights."""
    from ckpt_rules_publish.contents import LocalPath, PickledWeights, TrainingState
    from ckpt_rules_publish.loadable import NotLoadable
    from ckpt_rules_publish.parts import NoTokenizer

    return [PickledWeights, TrainingState, LocalPath, NoTokenizer, NotLoadable]

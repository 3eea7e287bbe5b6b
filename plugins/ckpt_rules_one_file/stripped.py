"""weights/stripped: a checkpoint from which the training state was removed."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity
from ckpt_rules_one_file.ultralytics import stripped_file


class Stripped(Rule):
    """The checkpoint was stripped for inference, so training can't be resumed from it.

    ## What it checks
    ultralytics' files for `epoch` -1 and no optimizer, which is what they hold when training is over.

    ## Why it matters
    A resume from the file's path stops with `training to N epochs is finished, nothing to resume`. `resume=True` takes the weights
    and starts a whole new training from epoch 1, with a warning in the log; older versions do so silently.

    ## How to repair
    Nothing to repair for inference: use the ruleset `inference`. To continue training, start a new run from these
    weights; to be able to resume, keep `epochN.pt` by the option `save_period`.
    """

    id = "weights/stripped"
    severity = Severity.WARNING
    tags = frozenset({"resume"})
    applies_to = frozenset({"ultralytics"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        yield Problem(
            message="the file was stripped for inference (epoch -1, no optimizer): a resume ends at once, or starts again",
            place=Place(path=stripped_file(checkpoint), key="epoch"),
            help="verify it with the ruleset inference, or start a new run from these weights",
        )

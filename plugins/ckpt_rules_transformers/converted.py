"""weights/converted-on-save: models that are saved under other names than they have in memory."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_transformers.sharded import is_sharded

_CONVERTED = {
    "mixtral": "the experts and routers",
    "qwen3_moe": "the experts",
    "gpt_neox": "the output embedding",
}


class ConvertedOnSave(Rule):
    """The Trainer resumes this model without some of its weights.

    ## What it checks
    Models that transformers 5 saves under the names of the hub, which are not those in memory: by `model_type`, and by the
    optimizer, which holds fewer parameters than the weights have tensors, with the same number of elements in all, because
    experts lie in one tensor in memory and in many on disk.

    ## Why it matters
    A resume loads the file with `strict=False` and without renaming. Weights with another name on disk keep their
    random initialisation, and only a warning in the log names the missing keys. `from_pretrained` on the same directory
    works.

    ## How to repair
    Load the weights with `from_pretrained(checkpoint)` before the Trainer resumes, or use a transformers that renames them on
    resume (see the release notes for `resume_from_checkpoint`), then ignore this finding in the ruleset.
    """

    id = "weights/converted-on-save"
    severity = Severity.WARNING
    tags = frozenset({"resume"})
    applies_to = frozenset({"transformers-trainer"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        if is_sharded(checkpoint):
            raise FactUnavailable("FSDP and DeepSpeed load weights of their own, by the names in memory")
        config = checkpoint.config
        kind = config.values.get("model_type")
        what = _CONVERTED.get(kind) if isinstance(kind, str) else None
        if what is None:
            return
        weights, optimizer = checkpoint.weights, checkpoint.optimizer
        held = sum(len(g.params) for g in optimizer.groups)
        if kind == "gpt_neox" or held < len(weights.tensors):
            file = weights.files[0].path
            yield Problem(
                message=f"the Trainer will not restore {what} of this {kind} model: their names in {file} differ from those in "
                f"the model ({len(weights.tensors):,} tensors for {held:,} parameters), and the Trainer does not rename them on "
                "resume",
                place=Place(path=file),
                help="load the weights with from_pretrained before the Trainer resumes",
                data={"model_type": kind, "tensors": len(weights.tensors), "parameters": held},
            )

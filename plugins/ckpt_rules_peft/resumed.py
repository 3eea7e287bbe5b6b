"""weights/adapter-not-resumed: adapters that hold what was trained in a form from which training can't continue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity
from ckpt_rules_peft.encoders import is_projected, keeps_only_the_largest
from ckpt_rules_peft.layout import CONFIG, WEIGHTS, adapters, configuration, inside


class AdapterNotResumed(Rule):
    """The adapter can be loaded for inference, but training can't continue from it.

    ## What it checks
    By adapter_config.json: prefix tuning with `prefix_projection` and VB-LoRA with `save_only_topk_weights`, from which
    a resume fails with an error; and the prompt encoder of P-tuning, which is reinitialised (information).

    ## Why it matters
    PEFT saves the prompts that an encoder produced but not the encoder. For P-tuning, the Trainer silently loads the
    prompts as the input of a new, randomly initialised encoder and gives it the old encoder's moments. Prefixes do not
    fit there, and the resume fails with a size mismatch.

    ## How to repair
    The encoder can't be recovered. To continue from the prompts, load them into prompt tuning, or into prefix tuning
    without a projection, with a fresh optimizer. For VB-LoRA, keep all logits (`save_only_topk_weights=False`) during
    training.
    """

    id = "weights/adapter-not-resumed"
    tags = frozenset({"resume"})
    applies_to = frozenset({"transformers-trainer"})  # the only trainer that resumes from an adapter

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each adapter."""
        for folder in checkpoint.fact(adapters):
            config = configuration(checkpoint, folder)
            for message, severity in _said(config):
                path = next(
                    (p for n in WEIGHTS if checkpoint.listing.has_file(p := inside(folder, n))), inside(folder, CONFIG)
                )
                yield Problem(
                    message=message,
                    place=Place(path=path),
                    help="load it for inference (the inference ruleset checks that), or start a new training run "
                    "from what it contains",
                    severity=severity,
                    data={"peft_type": config.get("peft_type")},
                )


def starts_anew(config: Mapping[str, object]) -> bool:
    """Whether a resume continues with an encoder at random weights."""
    return config.get("peft_type") == "P_TUNING"


def _said(config: Mapping[str, object]) -> Iterator[tuple[str, Severity | None]]:
    if starts_anew(config):
        kind = str(config.get("encoder_reparameterization_type") or "MLP")[:10]
        words = f"the adapter has the prompts but not the {kind} encoder that produced them: a resume feeds them into a new encoder"
        yield f"{words}, which silently starts from random weights", Severity.INFO
    elif is_projected(config):
        words = "the adapter has the prefixes but not the projection that produced them"
        yield f"{words}: a resume fails with a size mismatch of the embedding that they were computed from", None
    elif keeps_only_the_largest(config):
        words = f"VB-LoRA saved only the {config.get('topk')} largest of its logits (save_only_topk_weights)"
        yield f"{words}: a resume fails with 'Found infinity values in VB-LoRA logits'", None

"""Rules about what others need beside the weights."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, Place, Problem, Rule, Severity, is_count

_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tiktoken.model", "tekken.json",
)  # fmt: skip


class NoTokenizer(Rule):
    """A text model has no tokenizer.

    ## What it checks
    If config.json gives a `vocab_size`: that there is a tokenizer next to it, in any of the usual files.

    ## Why it matters
    With a different tokenizer the model gets the wrong tokens and produces nonsense without an error.

    ## How to repair
    `tokenizer.save_pretrained(...)` into the same directory.
    """

    id = "publish/no-tokenizer"
    severity = Severity.WARNING
    tags = frozenset({"publish"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        config = checkpoint.config
        size = config.values.get("vocab_size")
        if is_count(size) and size and not any(map(checkpoint.listing.has_file, _TOKENIZERS)):
            yield Problem(
                message=f"the model has a vocabulary of {int(size):,} tokens, but there is no tokenizer in its "
                "directory",
                place=Place(path=config.path, key="vocab_size"),
                help="save the tokenizer into the same directory",
                data={"vocab_size": int(size)},
            )

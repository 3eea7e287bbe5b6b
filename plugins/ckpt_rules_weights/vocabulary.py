"""weights/vocab-rows: whether every token of the tokenizer has its row in the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity
from ckpt_rules_weights.config_rules import EMBEDDINGS


class VocabRows(Rule):
    """The tokenizer has tokens without a row in the embeddings.

    ## What it checks
    The highest id among the added tokens (`added_tokens_decoder` in tokenizer_config.json, added_tokens.json) against
    the rows of the input embeddings. More rows than tokens are padding, which is fine.

    ## Why it matters
    The first text with such a token fails with an index out of range; on a GPU, with a device-side assertion that names
    neither token nor embedding.

    ## How to repair
    `model.resize_token_embeddings(len(tokenizer))` before training; or use the tokenizer that matches the weights.
    """

    id = "weights/vocab-rows"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem for each file that adds tokens."""
        added = _added_tokens(checkpoint)
        if not added:
            raise FactUnavailable("no tokenizer lists its added tokens")
        rows = {
            n: t.shape[0]
            for n, t in checkpoint.weights.complete().tensors.items()
            if n.endswith(EMBEDDINGS) and t.shape
        }
        if len(rows) != 1:
            raise FactUnavailable("there is not exactly one token embedding")
        ((name, count),) = rows.items()
        for path, tokens in added.items():
            token, highest = max(tokens.items(), key=lambda item: item[1])
            if highest >= count:
                yield Problem(
                    message=f"{path} gives the token {token!r} the id {highest:,}, but {name} has only {count:,} "
                    f"rows (0 to {count - 1:,})",
                    place=Place(path=path),
                    help="resize the embeddings to the tokenizer, or use the tokenizer that matches the weights",
                    data={"highest": highest, "rows": count},
                )


def _added_tokens(checkpoint: Checkpoint) -> dict[str, dict[str, int]]:
    """Token -> id, by the file that adds it."""
    found: dict[str, dict[str, int]] = {}
    decoder = _mapping(_mapping(_json(checkpoint, "tokenizer_config.json")).get("added_tokens_decoder"))
    ids = {
        str(_mapping(v).get("content", k)): int(str(k))
        for k, v in decoder.items()
        if str(k).isdecimal() and len(str(k)) < 12
    }
    if ids:
        found["tokenizer_config.json"] = ids
    listed = {str(k): v for k, v in _mapping(_json(checkpoint, "added_tokens.json")).items() if type(v) is int}
    if listed:
        found["added_tokens.json"] = listed
    return found


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}


def _json(checkpoint: Checkpoint, path: str) -> object:
    try:
        return checkpoint.files.contents(path)
    except FactUnavailable:
        return None

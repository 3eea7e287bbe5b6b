"""weights/adapter-vocabulary: tokens that were added for an adapter, against the embeddings of the base model beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, TensorInfo, WeightFile, is_count
from ckpt_rules_peft.layout import adapters, configuration

_EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight",
    "embed_tokens.base_layer.weight", "embed_tokens.modules_to_save.weight",
)  # fmt: skip
_LORA = "lora_embedding_A"
_MOST_DIGITS = 12


class AdapterVocabulary(Rule):
    """Tokens were added for the adapter, but its embeddings do not fit the base model's.

    ## What it checks
    If the base model that adapter_config.json names is next to the adapter: that the embeddings stored with the adapter
    have as many rows as the base model has tokens (`vocab_size`), and, if it stores none, that the base model has a row
    for every token that the adapter's tokenizer adds.

    ## Why it matters
    `PeftModel.from_pretrained` fails with a size mismatch unless the embeddings are resized first. Rows that were
    trained and are not in the adapter are lost: the first text with a new token fails with an index out of range, or
    uses random rows.

    ## How to repair
    Resize the base model before the adapter is loaded: `model.resize_token_embeddings(len(tokenizer))`. When saving,
    keep the rows: `save_pretrained(..., save_embedding_layers=True)`, or `modules_to_save=["embed_tokens", "lm_head"]`.
    """

    id = "weights/adapter-vocabulary"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        if "" not in checkpoint.fact(adapters):
            raise FactUnavailable("there is no adapter")
        config = configuration(checkpoint, "")
        base, rows = _base(checkpoint, config)
        if config.get("trainable_token_indices") or config.get("peft_type") == "TRAINABLE_TOKENS":
            raise FactUnavailable("the adapter stores only the rows of individual tokens")
        kept = next(_kept(checkpoint), None)
        if kept is not None:
            file, name, count = kept
            if count != rows:
                yield Problem(
                    message=f"the adapter's embeddings have {count:,} rows, but the base model in ../{base} has "
                    f"{rows:,}: loading fails with a size mismatch unless the base model is resized first",
                    place=Place(path=file.path, tensor=name),
                    help=f"call model.resize_token_embeddings({count}) before the adapter is loaded",
                    data={"rows": count, "base": rows},
                )
            return
        added = _added(checkpoint)
        beyond = {path: (token, number) for path, (token, number) in added.items() if number >= rows}
        for path, (token, number) in list(beyond.items())[:1]:
            yield Problem(
                message=f"{path} gives the token {token!r} the id {number:,}, the base model in ../{base} has "
                f"{rows:,} rows, and the adapter stores no embeddings: the training of the new rows is lost",
                place=Place(path=path),
                help="save with save_embedding_layers=True, or with the embeddings among modules_to_save",
                data={"highest": number, "base": rows},
            )


def _base(checkpoint: Checkpoint, config: Mapping[str, object]) -> tuple[str, int]:
    """The name of the base model's directory beside this one, and how many tokens it has."""
    named = config.get("base_model_name_or_path")
    name = named.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(named, str) else ""
    if not name or name not in checkpoint.listing.siblings:
        raise FactUnavailable("the base model is not next to the adapter")
    try:
        values = json.loads(checkpoint.files.small_text(f"../{name}/config.json") or "null")
    except (ValueError, RecursionError):
        values = None
    values = values if isinstance(values, dict) else {}
    text = values.get("text_config")
    count = values.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if not is_count(count) or count == 0:
        raise FactUnavailable("the base model's configuration does not say how many tokens it has")
    return name, int(count)


def _kept(checkpoint: Checkpoint) -> Iterator[tuple[WeightFile, str, int]]:
    """Embeddings in the adapter: file, name, rows."""
    for file, name, tensor in checkpoint.weights.complete().items():
        if name.endswith(_EMBEDDINGS) and len(tensor.shape) == 2:
            yield file, name, tensor.shape[0]
    for file, name, tensor in checkpoint.weights.items():
        if _LORA in name.split(".") and _is_of_tokens(name, tensor):
            yield file, name, tensor.shape[1]


def _is_of_tokens(name: str, tensor: TensorInfo) -> bool:
    module = name[: name.index(f".{_LORA}")] if f".{_LORA}" in name else ""
    return f"{module}.weight".endswith(_EMBEDDINGS) and len(tensor.shape) == 2


def _added(checkpoint: Checkpoint) -> dict[str, tuple[str, int]]:
    """The added token with the highest id, by the file that adds it."""
    found: dict[str, tuple[str, int]] = {}
    for path, tokens in (
        ("tokenizer_config.json", _decoder(_json(checkpoint, "tokenizer_config.json").get("added_tokens_decoder"))),
        ("added_tokens.json", {str(k): v for k, v in _json(checkpoint, "added_tokens.json").items() if type(v) is int}),
        ("tokenizer.json", _listed(_json(checkpoint, "tokenizer.json").get("added_tokens"))),
    ):
        if tokens:
            found[path] = max(tokens.items(), key=lambda item: item[1])
    return found


def _decoder(values: object) -> dict[str, int]:
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {
        str(v.get("content", k) if isinstance(v, Mapping) else k): int(k)
        for k, v in pairs
        if isinstance(k, str) and k.isdecimal() and len(k) <= _MOST_DIGITS
    }


def _listed(values: object) -> dict[str, int]:
    entries = [v for v in values if isinstance(v, Mapping)] if isinstance(values, list) else []
    return {str(v.get("content")): v["id"] for v in entries if type(v.get("id")) is int}


def _json(checkpoint: Checkpoint, path: str) -> Mapping[object, object]:
    if not checkpoint.listing.has_file(path):
        return {}
    try:
        values = checkpoint.files.contents(path)
    except FactUnavailable:
        return {}
    return values if isinstance(values, Mapping) else {}

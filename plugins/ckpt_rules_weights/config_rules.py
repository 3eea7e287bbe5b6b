"""Rules that compare the weights as a whole with their configuration: their number, their dtype, their head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pydantic import Field

from ckpt_rules import FLOAT_DTYPES, Checkpoint, FactUnavailable, Place, Problem, Rule, Severity, Weights, is_count
from ckpt_rules_weights.absent_names import absent_names, resumes_by_itself
from ckpt_rules_weights.architectures import Sizes, is_draft

_LLAMA_LIKE = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3"})
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)


def _model(checkpoint: Checkpoint) -> tuple[Weights, Mapping[str, object]]:
    """Whole weights of a model, and its configuration; FactUnavailable for adapters and quantised weights."""
    weights, config = checkpoint.weights.complete(), checkpoint.config
    if any(f.path.startswith("adapter") for f in weights.files):
        raise FactUnavailable("adapter weights are only part of a model")
    if config.values.get("quantization_config") is not None:
        raise FactUnavailable("quantised weights are packed, so their element counts differ")
    return weights, config.values


class SizeVsConfig(Rule):
    """The weights have far fewer or more elements than the configuration implies.

    ## What it checks
    For Llama and similar models, whose layers are known: the elements of the embeddings, attention and feed-forward
    matrices, computed from the sizes in config.json, against the elements of all tensors.

    ## Why it matters
    A save under ZeRO-3 or FSDP that did not gather the weights writes a valid file with a fraction of the model.
    `from_pretrained` initialises the rest randomly and only logs it.

    ## How to repair
    Gather the weights when saving (`stage3_gather_16bit_weights_on_model_save`), or merge the shards with the trainer's
    script (`zero_to_fp32.py`).
    """

    id = "weights/size-vs-config"
    tags = frozenset({"load", "resume"})

    ratio: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Weights are reported as missing below this share of the elements that the configuration implies.",
    )

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        weights, config = _model(checkpoint)
        implied = _implied(config)
        if implied is None:
            raise FactUnavailable("the size of this model family is not known")
        found = weights.numel
        if found < self.ratio * implied or found > implied / self.ratio * 2:
            yield Problem(
                message=f"the weights have {found:,} elements, but the configuration implies about {implied:,}",
                place=Place(path=weights.files[0].path),
                help="gather the weights when saving, or check whether the configuration is from another model",
                data={"found": found, "implied": implied},
            )


def _is_llama_like(config: Mapping[str, object]) -> bool:
    family = config.get("model_type")
    return isinstance(family, str) and family in _LLAMA_LIKE


def _implied(config: Mapping[str, object]) -> int | None:
    """Elements of the matrices of a Llama-like model: embeddings, attention, feed-forward."""
    layers = config.get("num_hidden_layers")
    sizes = Sizes.of(config)
    if not _is_llama_like(config) or is_draft(config) or not is_count(layers):
        return None
    numbers = (sizes.vocab, sizes.hidden, sizes.queries, sizes.keys, sizes.inner)
    if any(n is None for n in numbers):
        return None
    vocab, hidden, queries, keys, inner = (n or 0 for n in numbers)
    layer = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * inner
    heads = 1 if config.get("tie_word_embeddings") is True else 2
    return int(layers) * layer + heads * vocab * hidden


class DtypeVsConfig(Rule):
    """The weights are stored in a different float dtype than the configuration says.

    ## What it checks
    `dtype` (or `torch_dtype`) in config.json against the dtype of nine tenths of the elements.

    ## Why it matters
    Loaders that follow the configuration cast the weights: casting down loses precision, casting up takes twice the
    planned memory.

    ## How to repair
    Nothing, if this is intended. Otherwise save again with `save_pretrained`, which writes both.
    """

    id = "weights/dtype-vs-config"
    severity = Severity.INFO
    tags = frozenset({"load"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        weights, config = _model(checkpoint)
        said = config.get("dtype", config.get("torch_dtype"))
        meant = said.removeprefix("torch.") if isinstance(said, str) else None
        if meant not in FLOAT_DTYPES:
            raise FactUnavailable("the configuration names no dtype")
        stored: Counter[str] = Counter()
        for tensor in weights.tensors.values():
            stored[tensor.dtype] += tensor.numel if tensor.dtype in FLOAT_DTYPES else 0
        if not stored:
            raise FactUnavailable("there are no tensors")
        dtype, most = stored.most_common(1)[0]
        if dtype != meant and most > 0.9 * stored.total():
            yield Problem(
                message=f"the weights are {dtype}, but config.json says {meant}: loaders that follow it will cast them",
                place=Place(path="config.json", key="dtype" if "dtype" in config else "torch_dtype"),
                help="save them again with save_pretrained, unless this is intended",
                data={"stored": dtype, "config": meant},
            )


class Tied(Rule):
    """The output head is missing without explanation, or can't be the embedding that it is tied to.

    ## What it checks
    Where config.json says `tie_word_embeddings: false` and names a model for text generation (`...ForCausalLM`): that
    there is an output head in addition to the input embeddings. A configuration without the key is accepted. If it says
    `true`, for Llama and similar models, and the head is stored anyway: that it has the shape of the embeddings.
    [numerics/replicas-differ](#numericsreplicas-differ) compares their bytes. A missing head is an error if
    `from_pretrained` or the Trainer is known to look for it, otherwise a warning.

    ## Why it matters
    A head that is neither stored nor tied is initialised at random. Training continues with a loss as if the model had
    learned nothing.

    ## How to repair
    Save the complete model; or, if the head is the embedding, write `"tie_word_embeddings": true` into config.json.
    """

    id = "weights/tied"
    severity = Severity.WARNING
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        weights, config = _model(checkpoint)
        tensors = weights.tensors
        if config.get("tie_word_embeddings") is True and _is_llama_like(config):
            yield from _tied_shapes(weights)
            return
        names = config.get("architectures")
        causal = isinstance(names, list) and any(str(n).endswith("ForCausalLM") for n in names)
        if config.get("tie_word_embeddings") is not False or not causal:
            raise FactUnavailable("the configuration does not say that the model has a separate head")
        embedding = next((n for n in tensors if n.endswith(EMBEDDINGS)), None)
        if embedding is not None and not any(n.endswith(_HEADS) for n in tensors):
            yield Problem(
                message=f"there is no output head ({_HEADS[0]}), but config.json says that it is not tied to "
                f"{embedding}",
                place=Place(path="config.json", key="tie_word_embeddings"),
                help="save the complete model, or correct tie_word_embeddings if the head is the embedding",
                severity=Severity.ERROR if _is_looked_for(checkpoint) else None,
                data={"embedding": embedding},
            )


def _is_looked_for(checkpoint: Checkpoint) -> bool:
    """Whether the class in config.json is one that looks for the head, and it is this class that will be loaded."""
    try:
        absent = absent_names(checkpoint)
    except FactUnavailable:
        return False
    described = checkpoint.listing.has_file("modules.json")  # of sentence-transformers, which loads the base model
    return any(w.head for w in absent.lost) and not described and not resumes_by_itself(checkpoint)


def _tied_shapes(weights: Weights) -> Iterator[Problem]:
    """The head and the embeddings, of which there must be one each."""
    found = list(weights.items())
    heads = [(file.path, name, t) for file, name, t in found if name.endswith(_HEADS)]
    embeddings = [(name, t) for _, name, t in found if name.endswith(EMBEDDINGS)]
    if len(heads) != 1 or len(embeddings) != 1:
        raise FactUnavailable("the head is tied to the embeddings and not stored separately")
    (path, head, stored), (embedding, tied) = heads[0], embeddings[0]
    if stored.shape == tied.shape:
        return
    yield Problem(
        message=f"{head} has the shape {list(stored.shape)}, but config.json ties it to {embedding}, which has "
        f"{list(tied.shape)}",
        place=Place(path=path, tensor=head),
        help="save the complete model after resizing, or correct tie_word_embeddings if the head is separate",
        data={"head": list(stored.shape), "embedding": list(tied.shape)},
    )

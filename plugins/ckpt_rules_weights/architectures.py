"""The shapes of the best-known tensors in common architectures, as functions of their configuration.

Source: tiny models of each family, saved by transformers 5.23 and compared with their config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ckpt_rules import is_count

_ALIASES = {
    "vocab": ("vocab_size",),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "inner": ("intermediate_size", "n_inner", "d_ff", "ffn_dim"),
    "moe_inner": ("moe_intermediate_size", "intermediate_size"),
    "experts": ("num_local_experts", "num_experts"),
    "positions": ("max_position_embeddings", "n_positions"),
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a configuration names; None for what it leaves out or writes as something that is not a size."""

    vocab: int | None
    hidden: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    inner: int | None
    moe_inner: int | None
    experts: int | None
    positions: int | None

    @classmethod
    def of(cls, config: Mapping[str, object]) -> Sizes:
        """The sizes in a configuration, under whichever names it uses."""
        found = {name: _size(config, keys) for name, keys in _ALIASES.items()}
        if found["head_dim"] is None and found["hidden"] and found["heads"]:
            found["head_dim"] = found["hidden"] // found["heads"]
        if found["kv_heads"] is None:
            found["kv_heads"] = found["heads"]
        return cls(**found)

    @property
    def queries(self) -> int | None:
        """Rows of a query projection."""
        return _product(self.heads, self.head_dim)

    @property
    def keys(self) -> int | None:
        """Rows of a key or value projection."""
        return _product(self.kv_heads, self.head_dim)

    def times_hidden(self, factor: int) -> int | None:
        """A multiple of the hidden size."""
        return _product(factor, self.hidden)


def _size(config: Mapping[str, object], keys: tuple[str, ...]) -> int | None:
    return next((int(v) for k in keys if is_count(v := config.get(k)) and v > 0), None)


def _product(one: int | None, other: int | None) -> int | None:
    return one * other if one is not None and other is not None else None


Shape = tuple[int | None, int | None]
Shapes = Mapping[str, Callable[[Sizes], Shape]]

_HEADED: Shapes = {"lm_head.weight": lambda s: (s.vocab, s.hidden)}
_ATTENTION: Shapes = {
    "self_attn.q_proj.weight": lambda s: (s.queries, s.hidden),
    "self_attn.k_proj.weight": lambda s: (s.keys, s.hidden),
    "self_attn.v_proj.weight": lambda s: (s.keys, s.hidden),
    "self_attn.o_proj.weight": lambda s: (s.hidden, s.queries),
}
_LLAMA: Shapes = {
    **_HEADED,
    **_ATTENTION,
    "embed_tokens.weight": lambda s: (s.vocab, s.hidden),
    "mlp.gate_proj.weight": lambda s: (s.inner, s.hidden),
    "mlp.up_proj.weight": lambda s: (s.inner, s.hidden),
    "mlp.down_proj.weight": lambda s: (s.hidden, s.inner),
}
_MIXTRAL: Shapes = {
    **_LLAMA,
    "block_sparse_moe.gate.weight": lambda s: (s.experts, s.hidden),
    "block_sparse_moe.experts.*.w1.weight": lambda s: (s.inner, s.hidden),
    "block_sparse_moe.experts.*.w2.weight": lambda s: (s.hidden, s.inner),
    "block_sparse_moe.experts.*.w3.weight": lambda s: (s.inner, s.hidden),
}
_QWEN3_MOE: Shapes = {
    **_LLAMA,
    "mlp.gate.weight": lambda s: (s.experts, s.hidden),
    "mlp.experts.*.gate_proj.weight": lambda s: (s.moe_inner, s.hidden),
    "mlp.experts.*.up_proj.weight": lambda s: (s.moe_inner, s.hidden),
    "mlp.experts.*.down_proj.weight": lambda s: (s.hidden, s.moe_inner),
}
_PHI3: Shapes = {
    **_HEADED,
    "embed_tokens.weight": lambda s: (s.vocab, s.hidden),
    "self_attn.o_proj.weight": lambda s: (s.hidden, s.queries),
    "mlp.gate_up_proj.weight": lambda s: (_product(2, s.inner), s.hidden),
    "mlp.down_proj.weight": lambda s: (s.hidden, s.inner),
}
# Conv1D: inputs first.
_GPT2: Shapes = {
    **_HEADED,
    "wte.weight": lambda s: (s.vocab, s.hidden),
    "wpe.weight": lambda s: (s.positions, s.hidden),
    "attn.c_attn.weight": lambda s: (s.hidden, s.times_hidden(3)),
    "mlp.c_fc.weight": lambda s: (s.hidden, s.inner or s.times_hidden(4)),
    "mlp.c_proj.weight": lambda s: (s.inner or s.times_hidden(4), s.hidden),
}
_NEOX: Shapes = {
    "embed_in.weight": lambda s: (s.vocab, s.hidden),
    "embed_out.weight": lambda s: (s.vocab, s.hidden),
    "attention.query_key_value.weight": lambda s: (s.times_hidden(3), s.hidden),
    "mlp.dense_h_to_4h.weight": lambda s: (s.inner, s.hidden),
}
_OPT: Shapes = {
    "self_attn.q_proj.weight": lambda s: (s.hidden, s.hidden),
    "fc1.weight": lambda s: (s.inner, s.hidden),
    "fc2.weight": lambda s: (s.hidden, s.inner),
    "embed_tokens.weight": lambda s: (s.vocab, None),
}
_BLOOM: Shapes = {
    "word_embeddings.weight": lambda s: (s.vocab, s.hidden),
    "query_key_value.weight": lambda s: (s.times_hidden(3), s.hidden),
}
_FALCON: Shapes = {"word_embeddings.weight": lambda s: (s.vocab, s.hidden)}
_MAMBA: Shapes = {"backbone.embeddings.weight": lambda s: (s.vocab, s.hidden)}
_BERT: Shapes = {
    "embeddings.word_embeddings.weight": lambda s: (s.vocab, s.hidden),
    "embeddings.position_embeddings.weight": lambda s: (s.positions, s.hidden),
    "attention.self.query.weight": lambda s: (s.queries, s.hidden),
    "intermediate.dense.weight": lambda s: (s.inner, s.hidden),
}
_MODERNBERT: Shapes = {"embeddings.tok_embeddings.weight": lambda s: (s.vocab, s.hidden)}
_T5: Shapes = {
    "shared.weight": lambda s: (s.vocab, s.hidden),
    "SelfAttention.q.weight": lambda s: (s.queries, s.hidden),
    "DenseReluDense.wi.weight": lambda s: (s.inner, s.hidden),
}
_BART: Shapes = {"shared.weight": lambda s: (s.vocab, s.hidden)}
_WHISPER: Shapes = {"decoder.embed_tokens.weight": lambda s: (s.vocab, s.hidden)}
_VIT: Shapes = {
    "attention.attention.query.weight": lambda s: (s.hidden, s.hidden),
    "intermediate.dense.weight": lambda s: (s.inner, s.hidden),
}

_DRAFT: Shapes = {
    name: _LLAMA[name]
    for name in ("self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
}

FAMILIES: Mapping[str, Shapes] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA),
    "mixtral": _MIXTRAL,
    "qwen3_moe": _QWEN3_MOE,
    "phi3": _PHI3,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
    "opt": _OPT,
    "bloom": _BLOOM,
    "falcon": _FALCON,
    "mamba": _MAMBA,
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": _MODERNBERT,
    "t5": _T5,
    "bart": _BART,
    "whisper": _WHISPER,
    "vit": _VIT,
}
"""By `model_type`: expected shapes by the end of a tensor's name, `*` for a number; None where a size is not known."""

UNKNOWN_FAMILY: Shapes = {
    "embed_tokens.weight": lambda s: (s.vocab, None),
    "wte.weight": lambda s: (s.vocab, None),
    "tok_embeddings.weight": lambda s: (s.vocab, None),
    "word_embeddings.weight": lambda s: (s.vocab, None),
}
"""What can be said of a family that is not known: the rows of a token embedding."""


def is_draft(config: Mapping[str, object]) -> bool:
    """Whether a model only drafts for a larger one, as EAGLE-3 does: it goes by that one's `model_type`."""
    return is_count(config.get("draft_vocab_size")) or _names_a_draft(config.get("architectures"))


def _names_a_draft(architectures: object) -> bool:
    return isinstance(architectures, list) and any("eagle" in str(name).lower() for name in architectures)


def shapes_of(config: Mapping[str, object]) -> Shapes | None:
    """The shapes that are known of a configuration's model; None where its family is not known.

    The attention of a draft reads two hidden states at once, and its vocabulary is one of its own.
    """
    family = config.get("model_type")
    known = FAMILIES.get(family) if isinstance(family, str) else None
    if known is None or not is_draft(config):
        return known
    draft = config.get("draft_vocab_size")
    rows = int(draft) if is_count(draft) and draft > 0 else None
    headed: Shapes = {"lm_head.weight": lambda s: (rows, s.hidden)} if rows is not None else {}
    return {**_DRAFT, **headed} if known is _LLAMA else headed

"""The model that checkpoints of the kit hold: a Llama of 21 parameters, named and shaped as transformers would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape by name, in the order in which a model would define them."""
    vocab, hidden = config["vocab_size"], config["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in _layer_shapes(config).items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }


def forward(parameters: Mapping[str, Any], tokens: Any, config: Mapping[str, Any]) -> Any:
    """Logits (batch, length, vocab) for tokens (batch, length), computed by torch; without rotary positions."""
    from torch.nn import functional as F  # noqa: N812 - what everybody calls it

    def norm(x: Any, name: str) -> Any:
        return F.rms_norm(x, x.shape[-1:], parameters[f"{name}.weight"], config["rms_norm_eps"])

    x = F.embedding(tokens, parameters["model.embed_tokens.weight"])
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        x = x + _attention(parameters, norm(x, f"{name}.input_layernorm"), f"{name}.self_attn", config)
        x = x + _mlp(parameters, norm(x, f"{name}.post_attention_layernorm"), f"{name}.mlp")
    head = parameters.get("lm_head.weight", parameters["model.embed_tokens.weight"])
    return F.linear(norm(x, "model.norm"), head)


def _attention(parameters: Mapping[str, Any], x: Any, name: str, config: Mapping[str, Any]) -> Any:
    from torch.nn import functional as F  # noqa: N812 - what everybody calls it

    batch, length, _ = x.shape

    def heads(which: str) -> Any:
        flat = F.linear(x, parameters[f"{name}.{which}_proj.weight"])
        return flat.view(batch, length, -1, config["head_dim"]).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(heads("q"), heads("k"), heads("v"), is_causal=True, enable_gqa=True)
    return F.linear(mixed.transpose(1, 2).reshape(batch, length, -1), parameters[f"{name}.o_proj.weight"])


def _mlp(parameters: Mapping[str, Any], x: Any, name: str) -> Any:
    from torch.nn import functional as F  # noqa: N812 - what everybody calls it

    gate = F.silu(F.linear(x, parameters[f"{name}.gate_proj.weight"]))
    return F.linear(gate * F.linear(x, parameters[f"{name}.up_proj.weight"]), parameters[f"{name}.down_proj.weight"])

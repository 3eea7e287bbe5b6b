"""Names of the tensors of models that generate text, by `model_type`.

Source: tiny models of each class, saved by transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ckpt_rules import is_count
from ckpt_rules_weights.family import Config, Family, Names, names, nothing_more, says

_HEADS: Mapping[str, Names] = {
    "Model": (),
    "ForCausalLM": names("lm_head.weight"),
    "ForSequenceClassification": names("score.weight"),
    "ForTokenClassification": names("score.weight|classifier.weight score.bias|classifier.bias"),
    "ForQuestionAnswering": names("qa_outputs.{weight,bias}"),
}
_QKVO = names("self_attn.{q,k,v,o}_proj.weight")
_GATED = names("mlp.{gate,up,down}_proj.weight")
_QK_NORMS = names("self_attn.{q,k}_norm.weight")
_NORMS = names("{input,post_attention}_layernorm.weight")
_SANDWICH = names("{input,post_attention,pre_feedforward,post_feedforward}_layernorm.weight")
_QKV_BIAS = names("self_attn.{q,k,v}_proj.bias")
_QKVO_BIAS = names("self_attn.{q,k,v,o}_proj.bias")
_EXPERTS = names(
    "mlp.experts.#.gate_proj.weight|mlp.experts.gate_up_proj mlp.experts.#.up_proj.weight|mlp.experts.gate_up_proj "
    "mlp.experts.#.down_proj.weight|mlp.experts.down_proj mlp.gate.weight"
)


def _biases(config: Config, layer: int | None) -> Names:
    """Of attention and feed-forward, each with a switch of its own."""
    if layer is None:
        return ()
    attention = _QKVO_BIAS if says(config, "attention_bias", default=False) else ()
    feed = names("mlp.{gate,up,down}_proj.bias") if says(config, "mlp_bias", default=False) else ()
    return attention + feed


def _attention_bias(config: Config, layer: int | None) -> Names:
    return _QKVO_BIAS if layer is not None and says(config, "attention_bias", default=False) else ()


def _glm_bias(config: Config, layer: int | None) -> Names:
    return _QKV_BIAS if layer is not None and says(config, "attention_bias", default=True) else ()


def _is_sparse(config: Config, layer: int) -> bool | None:
    """Whether a layer has experts, as the Qwens count; None where the configuration can't be understood."""
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    experts = next((config[key] for key in ("num_experts", "num_local_experts") if key in config), None)
    if not isinstance(dense, list) or not is_count(step) or step < 1 or not is_count(experts):
        return None
    return layer not in dense and experts > 0 and (layer + 1) % step == 0


def _feed_of_qwen(config: Config, layer: int | None, shared: Names = ()) -> Names:
    sparse = None if layer is None else _is_sparse(config, layer)
    return () if sparse is None else _EXPERTS + shared if sparse else _GATED


def _qwen2_moe(config: Config, layer: int | None) -> Names:
    shared = names("mlp.shared_expert.{gate,up,down}_proj.weight mlp.shared_expert_gate.weight")
    biases = _QKV_BIAS if layer is not None and says(config, "qkv_bias", default=True) else ()
    return _feed_of_qwen(config, layer, shared) + biases


def _qwen3_moe(config: Config, layer: int | None) -> Names:
    return _feed_of_qwen(config, layer) + _attention_bias(config, layer)


def _cohere(config: Config, layer: int | None) -> Names:
    normed = layer is not None and says(config, "use_qk_norm", default=False)
    return _attention_bias(config, layer) + (_QK_NORMS if normed else ())


def _stablelm(config: Config, layer: int | None) -> Names:
    if layer is None:
        return ()
    second = says(config, "use_parallel_residual", default=False)
    biases = _QKV_BIAS if says(config, "use_qkv_bias", default=False) else ()
    return biases + (() if second else names("post_attention_layernorm.{weight,bias}"))


def _starcoder2(config: Config, layer: int | None) -> Names:
    biased = layer is not None and says(config, "use_bias", default=True)
    return (*_QKVO_BIAS, *names("mlp.{c_fc,c_proj}.bias")) if biased else ()


def _gpt_oss(config: Config, layer: int | None) -> Names:
    return _QKVO_BIAS if layer is not None and says(config, "attention_bias", default=True) else ()


def _seed_oss(config: Config, layer: int | None) -> Names:
    if layer is None:
        return ()
    inwards = _QKV_BIAS if says(config, "attention_bias", default=True) else ()
    outwards = names("self_attn.o_proj.bias") if says(config, "attention_out_bias", default=False) else ()
    feed = names("mlp.{gate,up,down}_proj.bias") if says(config, "mlp_bias", default=False) else ()
    return inwards + outwards + feed


def _neox(config: Config, layer: int | None) -> Names:
    biased = layer is not None and says(config, "attention_bias", default=True)
    return names("attention.{query_key_value,dense}.bias") if biased else ()


def _falcon(config: Config, layer: int | None) -> Names:
    if layer is None:
        return ()
    biased = says(config, "bias", default=False)
    found = names("self_attention.{query_key_value,dense}.bias mlp.dense_{h_to_4h,4h_to_h}.bias") if biased else ()
    count = config.get("num_ln_in_parallel_attn")
    two = count == 2 or (count is None and says(config, "new_decoder_architecture", default=False))
    if not says(config, "parallel_attn", default=True):
        return found + names("{input,post_attention}_layernorm.{weight,bias}")
    return found + (names("ln_{attn,mlp}.{weight,bias}") if two else names("input_layernorm.{weight,bias}"))


def _opt(config: Config, layer: int | None) -> Names:
    normed = says(config, "layer_norm_elementwise_affine", default=True)
    if layer is not None:
        biased = says(config, "enable_bias", default=True)
        biases = names("self_attn.{k,v,q,out}_proj.bias fc{1,2}.bias") if biased else ()
        return biases + (names("{self_attn,final}_layer_norm.{weight,bias}") if normed else ())
    last = says(config, "do_layer_norm_before", default=True) and not config.get("_remove_final_layer_norm")
    width = config.get("word_embed_proj_dim")
    projected = is_count(width) and width != config.get("hidden_size")
    found = names("decoder.final_layer_norm.{weight,bias}") if last and normed else ()
    return found + (names("decoder.project_{in,out}.weight") if projected else ())


def _mamba(config: Config, layer: int | None) -> Names:
    if layer is None:
        return ()
    biases = names("mixer.{in,out}_proj.bias") if says(config, "use_bias", default=False) else ()
    return biases + (names("mixer.conv1d.bias") if says(config, "use_conv_bias", default=True) else ())


_LLAMA = Family(
    stem="Llama",
    spans="transformer",
    prefix="model",
    embedding="embed_tokens.weight",
    base=("norm.weight",),
    stack="layers",
    layer=_QKVO + _GATED + _NORMS,
    heads=_HEADS,
    more=_biases,
)
_MISTRAL = replace(_LLAMA, stem="Mistral", spans="", more=nothing_more)
_GEMMA2 = replace(_LLAMA, stem="Gemma2", layer=_QKVO + _GATED + _SANDWICH, tied=True, more=_attention_bias)
_GEMMA3_HEADS = {
    "TextModel": (),
    "ForCausalLM": _HEADS["ForCausalLM"],
    "TextForSequenceClassification": _HEADS["ForSequenceClassification"],
}
_OLMO2 = replace(
    _LLAMA,
    stem="Olmo2",
    layer=_QKVO + _GATED + _QK_NORMS + names("post_{attention,feedforward}_layernorm.weight"),
    more=_attention_bias,
)
_COHERE = replace(_LLAMA, stem="Cohere", layer=(*_QKVO, *_GATED, "input_layernorm.weight"), tied=True, more=_cohere)
_GLM = replace(
    _LLAMA,
    stem="Glm",
    layer=_QKVO + _NORMS + names("mlp.{gate_up,down}_proj.weight"),
    more=_glm_bias,
)
_MIXTRAL_EXPERTS = names(
    "block_sparse_moe.experts.#.w1.weight|mlp.experts.gate_up_proj block_sparse_moe.experts.#.w3.weight|mlp.experts.gate_up_proj "
    "block_sparse_moe.experts.#.w2.weight|mlp.experts.down_proj block_sparse_moe.gate.weight|mlp.gate.weight"
)
_QWEN3_MOE = replace(
    _LLAMA,
    stem="Qwen3Moe",
    layer=_QKVO + _QK_NORMS + _NORMS,
    experts=("num_experts", "num_local_experts"),
    more=_qwen3_moe,
)
_GPT2 = Family(
    stem="GPT2",
    prefix="transformer",
    embedding="wte.weight",
    base=names("wpe.weight ln_f.{weight,bias}"),
    stack="h",
    layer=names("ln_{1,2}.{weight,bias} attn.c_{attn,proj}.{weight,bias} mlp.c_{fc,proj}.{weight,bias}"),
    heads={
        "Model": (),
        "LMHeadModel": names("lm_head.weight"),
        "ForSequenceClassification": names("score.weight"),
        "ForTokenClassification": names("classifier.{weight,bias}"),
        "ForQuestionAnswering": names("qa_outputs.{weight,bias}"),
    },
    tied=True,
    count=("n_layer", "num_hidden_layers"),
)
_GPT2_HEADS = {**_GPT2.heads, "ForCausalLM": names("lm_head.weight")}
_GPTJ = replace(
    _GPT2,
    stem="GPTJ",
    base=names("ln_f.{weight,bias}"),
    layer=names("ln_1.{weight,bias} attn.{q,k,v,out}_proj.weight mlp.fc_{in,out}.{weight,bias}"),
    heads={**_GPT2_HEADS, "ForCausalLM": names("lm_head.{weight,bias}")},
    tied=False,
)
_NEOX = replace(
    _LLAMA,
    stem="GPTNeoX",
    spans="",
    prefix="gpt_neox",
    embedding="embed_in.weight",
    base=names("final_layer_norm.{weight,bias}"),
    layer=names(
        "{input,post_attention}_layernorm.{weight,bias} attention.{query_key_value,dense}.weight "
        "mlp.dense_{h_to_4h,4h_to_h}.{weight,bias}"
    ),
    heads={**_GPT2_HEADS, "ForCausalLM": names("embed_out.weight|lm_head.weight")},
    output="embed_out.weight|lm_head.weight",
    more=_neox,
)
_BLOOM = replace(
    _GPT2,
    stem="Bloom",
    embedding="word_embeddings.weight",
    base=names("word_embeddings_layernorm.{weight,bias} ln_f.{weight,bias}"),
    layer=names(
        "{input,post_attention}_layernorm.{weight,bias} self_attention.{query_key_value,dense}.{weight,bias} "
        "mlp.dense_{h_to_4h,4h_to_h}.{weight,bias}"
    ),
    heads=_GPT2_HEADS,
)

DECODERS: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "ministral": replace(_MISTRAL, stem="Ministral", spans="transformer"),
    "qwen2": replace(_MISTRAL, stem="Qwen2", spans="transformer", layer=_LLAMA.layer + _QKV_BIAS),
    "qwen3": replace(_LLAMA, stem="Qwen3", layer=_LLAMA.layer + _QK_NORMS, more=_attention_bias),
    "gemma": replace(_LLAMA, stem="Gemma", tied=True, more=_attention_bias),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, stem="Gemma3", layer=_GEMMA2.layer + _QK_NORMS, heads=_GEMMA3_HEADS),
    "granite": replace(_LLAMA, stem="Granite"),
    "smollm3": replace(_LLAMA, stem="SmolLM3", tied=True),
    "helium": replace(_LLAMA, stem="Helium", more=nothing_more),
    "olmo": replace(_LLAMA, stem="Olmo", base=(), layer=_QKVO + _GATED, more=_attention_bias),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, stem="Olmo3"),
    "seed_oss": replace(_LLAMA, stem="SeedOss", more=_seed_oss),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, stem="Cohere2", more=_attention_bias),
    "glm": _GLM,
    "glm4": replace(_GLM, stem="Glm4", layer=_GLM.layer + names("post_{mlp,self_attn}_layernorm.weight")),
    "phi3": replace(
        _MISTRAL,
        stem="Phi3",
        layer=_NORMS + names("self_attn.{qkv,o}_proj.weight mlp.{gate_up,down}_proj.weight"),
    ),
    "phi": replace(
        _MISTRAL,
        stem="Phi",
        base=names("final_layernorm.{weight,bias}"),
        layer=names("input_layernorm.{weight,bias} self_attn.{q_proj,k_proj,v_proj,dense}.{weight,bias} mlp.fc{1,2}.{weight,bias}"),
        heads={**_HEADS, "ForCausalLM": names("lm_head.{weight,bias}")},
    ),
    "stablelm": replace(
        _LLAMA,
        stem="StableLm",
        base=names("norm.{weight,bias}"),
        layer=_QKVO + _GATED + names("input_layernorm.{weight,bias}"),
        more=_stablelm,
    ),
    "starcoder2": replace(
        _LLAMA,
        stem="Starcoder2",
        base=names("norm.{weight,bias}"),
        layer=_QKVO + names("mlp.{c_fc,c_proj}.weight {input,post_attention}_layernorm.{weight,bias}"),
        tied=True,
        more=_starcoder2,
    ),
    "mixtral": replace(
        _MISTRAL, stem="Mixtral", layer=_QKVO + _NORMS + _MIXTRAL_EXPERTS, experts=("num_local_experts",)
    ),
    "qwen2_moe": replace(_QWEN3_MOE, stem="Qwen2Moe", spans="", layer=_QKVO + _NORMS, more=_qwen2_moe),
    "qwen3_moe": _QWEN3_MOE,
    "olmoe": replace(
        _QWEN3_MOE, stem="Olmoe", layer=_QKVO + _QK_NORMS + _NORMS + _EXPERTS, more=_attention_bias
    ),
    "gpt_oss": replace(
        _LLAMA,
        stem="GptOss",
        layer=_QKVO
        + _NORMS
        + names("self_attn.sinks mlp.router.{weight,bias} mlp.experts.{gate_up,down}_proj{,_bias}"),
        more=_gpt_oss,
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, stem="GPTBigCode", heads=_GPT2_HEADS),
    "gpt_neo": replace(
        _GPT2,
        stem="GPTNeo",
        layer=names(
            "ln_{1,2}.{weight,bias} attn.attention.{q,k,v,out}_proj.weight attn.attention.out_proj.bias "
            "mlp.c_{fc,proj}.{weight,bias}"
        ),
        heads=_GPT2_HEADS,
        count=("num_layers", "num_hidden_layers"),
    ),
    "gptj": _GPTJ,
    "codegen": replace(
        _GPTJ,
        stem="CodeGen",
        layer=names("ln_1.{weight,bias} attn.{qkv,out}_proj.weight mlp.fc_{in,out}.{weight,bias}"),
    ),
    "gpt_neox": _NEOX,
    "bloom": _BLOOM,
    "falcon": replace(
        _BLOOM,
        stem="Falcon",
        base=names("ln_f.{weight,bias}"),
        layer=names("self_attention.{query_key_value,dense}.weight mlp.dense_{h_to_4h,4h_to_h}.weight"),
        count=("num_hidden_layers", "n_layer"),
        more=_falcon,
    ),
    "mpt": replace(
        _GPT2,
        stem="Mpt",
        base=names("norm_f.weight"),
        stack="blocks",
        layer=names("attn.{Wqkv,out_proj}.weight ffn.{up,down}_proj.weight norm_{1,2}.weight"),
        heads=_GPT2_HEADS,
        count=("n_layers", "num_hidden_layers"),
    ),
    "opt": replace(
        _LLAMA,
        stem="OPT",
        spans="",
        embedding="decoder.embed_tokens.weight",
        base=names("decoder.embed_positions.weight"),
        stack="decoder.layers",
        layer=names("self_attn.{k,v,q,out}_proj.weight fc{1,2}.weight"),
        tied=True,
        more=_opt,
    ),
    "mamba": replace(
        _LLAMA,
        stem="Mamba",
        prefix="backbone",
        embedding="embeddings.weight|embedding.weight",
        base=names("norm_f.weight"),
        layer=names("norm.weight mixer.{A_log,D} mixer.{conv1d,in_proj,out_proj,x_proj}.weight mixer.dt_proj.{weight,bias}"),
        tied=True,
        more=_mamba,
    ),
    "mamba2": replace(
        _LLAMA,
        stem="Mamba2",
        prefix="backbone",
        embedding="embeddings.weight|embedding.weight",
        base=names("norm_f.weight"),
        layer=names("norm.weight mixer.{A_log,D,dt_bias} mixer.{conv1d,in_proj,out_proj,norm}.weight"),
        more=_mamba,
    ),
}  # fmt: skip
"""Families by `model_type`."""

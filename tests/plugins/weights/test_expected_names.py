"""The tables of names against transformers: what `from_pretrained` starts from random numbers is reported, and nothing else."""

from __future__ import annotations

import re

import pytest
from safetensors.torch import load_file, save_file

from ckpt_rules.testing import run_rule
from ckpt_rules_weights.config_rules import Tied
from ckpt_rules_weights.expected_names import FAMILIES
from ckpt_rules_weights.missing_tensor import MissingTensor

pytestmark = pytest.mark.slow

_SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "head_dim": 4}
_PADDED = {**_GROUPED, "pad_token_id": 0}
_PLACED = {**_SMALL, "max_position_embeddings": 32}
_EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
_GPT = {"vocab_size": 40, "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 32}
_PATCHES = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4,
}  # fmt: skip
_BIASED = {"attention_bias": True}

TINY = {
    "llama": [_GROUPED, {**_GROUPED, **_BIASED, "mlp_bias": True}, {**_GROUPED, "tie_word_embeddings": True}],
    "mistral": [_GROUPED],
    "ministral": [_GROUPED],
    "qwen2": [_GROUPED, {**_GROUPED, "tie_word_embeddings": True}],
    "qwen3": [_GROUPED, {**_GROUPED, **_BIASED}],
    "gemma": [_GROUPED],
    "gemma2": [_GROUPED],
    "gemma3_text": [_GROUPED],
    "granite": [_GROUPED, {**_GROUPED, **_BIASED, "mlp_bias": True}],
    "smollm3": [_PADDED],
    "helium": [_GROUPED],
    "olmo": [_GROUPED],
    "olmo2": [_GROUPED],
    "olmo3": [_GROUPED],
    "olmoe": [{**_GROUPED, **_EXPERTS}],
    "seed_oss": [_GROUPED],
    "cohere": [_GROUPED, {**_GROUPED, "use_qk_norm": True}],
    "cohere2": [_GROUPED],
    "glm": [_PADDED, {**_PADDED, "attention_bias": False}],
    "glm4": [_PADDED],
    "phi": [{**_SMALL, "pad_token_id": 0}],
    "phi3": [_PADDED],
    "stablelm": [_GROUPED, {**_GROUPED, "use_qkv_bias": True, "use_parallel_residual": True}],
    "starcoder2": [_GROUPED, {**_GROUPED, "use_bias": False}],
    "mixtral": [{**_GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}],
    "qwen2_moe": [
        {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 8},
        {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 8, "decoder_sparse_step": 2, "qkv_bias": False},
    ],
    "qwen3_moe": [{**_GROUPED, **_EXPERTS}, {**_GROUPED, **_EXPERTS, "mlp_only_layers": [0]}],
    "gpt_oss": [{**_GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}],
    "gpt2": [_GPT, {**_GPT, "tie_word_embeddings": False}],
    "gpt_bigcode": [_GPT],
    "gpt_neo": [{
        "vocab_size": 40, "hidden_size": 16, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 32,
    }],
    "gptj": [{**_GPT, "rotary_dim": 4}],
    "codegen": [{**_GPT, "rotary_dim": 4}],
    "gpt_neox": [_PLACED, {**_PLACED, "attention_bias": False}],
    "bloom": [{"vocab_size": 40, "hidden_size": 16, "n_head": 2, "n_layer": 2}],
    "falcon": [
        {**_SMALL, "bias": True},
        {**_SMALL, "new_decoder_architecture": True, "num_kv_heads": 2},
        {**_SMALL, "parallel_attn": False},
    ],
    "mpt": [{"vocab_size": 40, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32}],
    "opt": [
        {**_PLACED, "ffn_dim": 24, "word_embed_proj_dim": 16},
        {**_PLACED, "ffn_dim": 24, "word_embed_proj_dim": 8, "do_layer_norm_before": False},
        {**_PLACED, "ffn_dim": 24, "word_embed_proj_dim": 16, "enable_bias": False, "layer_norm_elementwise_affine": False},
    ],
    "mamba": [{"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}],
    "mamba2": [
        {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 4, "n_groups": 1, "use_bias": True},
    ],
    "bert": [_PLACED],
    "roberta": [_PLACED],
    "xlm-roberta": [_PLACED],
    "camembert": [_PLACED],
    "mpnet": [_PLACED],
    "distilbert": [{"vocab_size": 40, "dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 24, "max_position_embeddings": 32}],
    "electra": [{**_PLACED, "embedding_size": 8}, {**_PLACED, "embedding_size": 16}],
    "deberta-v2": [_PLACED],
    "modernbert": [
        {**_SMALL, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
        {
            **_SMALL, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
            "norm_bias": True, "mlp_bias": True, "attention_bias": True,
        },
    ],
    "vit": [_PATCHES, {**_PATCHES, "qkv_bias": False}],
    "deit": [_PATCHES],
    "dinov2": [_PATCHES, {**_PATCHES, "use_swiglu_ffn": True}],
}  # fmt: skip

OPTIONAL = ("pooler.dense.weight", "pooler.dense.bias")
"""Of a base model, which is often saved and loaded without."""
BY_OPTION = ("decoder.bias", "head.norm.bias", "head.dense.bias")
"""Of ModernBERT's heads, which have them by options: the rule asks for none of them."""


@pytest.fixture(scope="module")
def transformers():
    library = pytest.importorskip("transformers")
    library.utils.logging.disable_progress_bar()
    library.logging.set_verbosity(50)
    return library


def findings(folder):
    """What is said of names; Tied speaks of the output embedding."""
    return [found for rule in (MissingTensor(), Tied()) for found in run_rule(rule, folder).findings]


def is_filled_in(cls, folder):
    """Whether the loader makes something up, or gives up because an expert is missing."""
    try:
        return bool(cls.from_pretrained(folder, output_loading_info=True)[1]["missing_keys"])
    except RuntimeError:
        return True


def one_of_each_kind(tensors):
    kinds = {re.sub(r"\.\d+(?=\.)", ".*", name): name for name in tensors}
    return list(kinds.values())


def test_every_family_is_tried():
    assert TINY.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", TINY)
def test_what_a_loader_fills_in_is_reported_and_nothing_else(transformers, family, tmp_path):
    for number, config in enumerate(TINY[family]):
        tried = set()
        for end in FAMILIES[family].heads:
            cls = getattr(transformers, FAMILIES[family].stem + end, None)
            if cls is None:
                continue
            folder = tmp_path / f"{number}{end}"
            cls(transformers.AutoConfig.for_model(family, **config)).save_pretrained(folder)
            result = run_rule(MissingTensor(), folder)
            assert (result.status, findings(folder)) == ("passed", []), cls
            tensors = load_file(folder / "model.safetensors")
            # The names of the base model are tried once, those of each head with it.
            base = {name: name.removeprefix(f"{FAMILIES[family].prefix}.") for name in tensors}
            for gone in one_of_each_kind(tensors):
                if base[gone] in tried or gone in BY_OPTION or (end.endswith("Model") and gone in OPTIONAL):
                    continue
                kept = {name: tensor for name, tensor in tensors.items() if name != gone}
                save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
                assert len(findings(folder)) == is_filled_in(cls, folder), (cls, gone)
            tried |= {n for n in base.values() if not end.endswith("LM")}

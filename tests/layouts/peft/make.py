"""Saves adapters with the real peft: `make.py OUT` writes one into OUT/NAME for each name in ADAPTERS."""

from __future__ import annotations

import sys
from pathlib import Path

from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ADAPTERS = {
    "lora": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    "ranks": LoraConfig(
        r=4, rank_pattern={"layers.0.self_attn.q_proj": 8}, target_modules="all-linear", task_type="CAUSAL_LM"
    ),
    "saved": LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"], use_dora=False),
    "expressions": LoraConfig(
        r=4,
        rank_pattern={r"^model.layers.0.*q_proj": 8, r"layers\.1\.self_attn\.v_proj": 2},
        target_modules=["q_proj", "v_proj"],
    ),
    "narrowed": LoraConfig(r=4, target_modules="all-linear", exclude_modules=["q_proj"], task_type="CAUSAL_LM"),
    "tied": LoraConfig(
        r=4, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True, task_type="CAUSAL_LM"
    ),
    "prompt": PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
}

for name, config in ADAPTERS.items():
    base = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=name == "tied"))
    get_peft_model(base, config).save_pretrained(Path(sys.argv[1]) / name)

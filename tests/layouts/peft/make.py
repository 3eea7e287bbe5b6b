"""Saves adapters with the real peft: `make.py OUT` writes OUT/lora, OUT/ranks, OUT/saved and OUT/prompt."""

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
    "prompt": PromptTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM"),
}

for name, config in ADAPTERS.items():
    get_peft_model(LlamaForCausalLM(LlamaConfig(**SMALL)), config).save_pretrained(Path(sys.argv[1]) / name)

"""Trains tiny models of many families for two updates, each with the Trainer, in one process: `families.py OUT`.

OUT/NAME/checkpoint-2 is a checkpoint; OUT/lora-at-start an adapter that was never trained. OUT/resumed.json says what the
real Trainer made of PEFT's encoders: the error with which a resume stopped, or how many parameters it restored of how many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import CartridgeConfig, LoraConfig, PrefixTuningConfig, PromptEncoderConfig, VBLoRAConfig, get_peft_model
from tokenizers import Tokenizer, models
from train import SMALL, lora
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    WhisperConfig,
    WhisperForConditionalGeneration,
    set_seed,
)

SIZES = {name: size for name, size in SMALL.items() if name != "num_key_value_heads"}
HALVES = {
    "vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip
EARS = {
    "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
MIXTURE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "head_dim": 8}


class Samples(torch.utils.data.Dataset):
    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 8

    def __getitem__(self, i):
        tokens = torch.arange(i, i + 8)
        if self.kind == "sounds":
            return {"input_features": torch.randn(8, 16), "labels": tokens}
        if self.kind == "numbers":
            return {"x": torch.randn(4), "labels": torch.tensor(1.0)}
        return {"input_ids": tokens, "labels": tokens}


class Plain(torch.nn.Module):
    """A model without a configuration."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))

    def forward(self, x, labels):
        return {"loss": (self.layers(x)[:, 0] - labels).pow(2).mean()}


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def words():
    names = {f"w{i}": i for i in range(66)} | {"<unk>": 66}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="<unk>")))


def padded():
    """More rows than tokens, and tokens that were added after the model was made."""
    model, tokenizer = llama(), words()
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<x>"]})
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64)
    return model, tokenizer


def half_but_for_a_norm():
    model = llama().to(torch.bfloat16)
    model.model.norm.float()
    model.lm_head.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return model


def prompted(kind, **options):
    return get_peft_model(llama(), kind(task_type="CAUSAL_LM", num_virtual_tokens=5, **options))


def two_adapters():
    model = lora()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["k_proj"], task_type="CAUSAL_LM"))
    model.set_adapter("other")
    return model


def largest_logits():
    sizes = {"num_vectors": 8, "vector_length": 8, "target_modules": ["q_proj"]}
    return get_peft_model(llama(), VBLoRAConfig(save_only_topk_weights=True, task_type="CAUSAL_LM", **sizes))


ADAPTERS = {
    "p-tuning": lambda: prompted(PromptEncoderConfig, encoder_hidden_size=8),
    "p-tuning-lstm": lambda: prompted(
        PromptEncoderConfig, encoder_hidden_size=8, encoder_reparameterization_type="LSTM"
    ),
    "prefix-projection": lambda: prompted(PrefixTuningConfig, prefix_projection=True, encoder_hidden_size=8),
    "largest-logits": largest_logits,
    "cartridge": lambda: prompted(CartridgeConfig, num_frozen_tokens=2),
    "two-adapters": two_adapters,
    "named-adapter": lambda: get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]), adapter_name="mine"),
}
MODELS = {
    **ADAPTERS,
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    ),
    "bert": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**HALVES, max_position_embeddings=32)),
    "whisper": lambda: WhisperForConditionalGeneration(WhisperConfig(**HALVES, **EARS)),
    "qwen3-moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL, **MIXTURE)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    "padded": padded,
    "norm-in-float32": half_but_for_a_norm,
    "no-configuration": Plain,
}
KINDS = {"whisper": "sounds", "no-configuration": "numbers"}
OPTIMIZERS = ("adamw_torch_fused", "rmsprop", "adagrad")
RUNS = {
    **{name: {} for name in MODELS},
    **{name: {"optim": name} for name in OPTIMIZERS},
    "unusual": {"label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0, "dataloader_drop_last": True},
}


def trainer(out: Path, name: str, **options) -> Trainer:
    model, *tokenizer = made if isinstance(made := MODELS.get(name, llama)(), tuple) else (made,)
    arguments = TrainingArguments(
        str(out / name), per_device_train_batch_size=4, save_steps=2, logging_steps=1, report_to=[], use_cpu=True,
        disable_tqdm=True, **{"max_steps": 2, **options},
    )  # fmt: skip
    samples = Samples(KINDS.get(name, "words"))
    processing = tokenizer[0] if tokenizer else None
    return Trainer(model=model, args=arguments, train_dataset=samples, processing_class=processing)


def resumed(out: Path, name: str, trained: torch.nn.Module) -> str | list[int]:
    """What a resume loads into a model of other random numbers; VB-LoRA finds its infinities at the first batch."""
    set_seed(1)
    again = trainer(out, name)
    before = {n: p.detach().clone() for n, p in trained.named_parameters() if p.requires_grad}
    try:
        again._load_from_checkpoint(str(out / name / "checkpoint-2"))
        again.model(**{key: value[None] for key, value in again.train_dataset[0].items()})
    except RuntimeError as error:
        return str(error)
    after = dict(again.model.named_parameters())
    return [sum(torch.equal(value, after[n]) for n, value in before.items()), len(before)]


def main() -> None:
    out, found = Path(sys.argv[1]), {}
    for name, options in RUNS.items():
        set_seed(0)
        first = trainer(out, name, **options)
        first.train()
        if name in ADAPTERS:
            found[name] = resumed(out, name, first.model)
    (out / "resumed.json").write_text(json.dumps(found, indent=1))
    lora().save_pretrained(out / "lora-at-start")


if __name__ == "__main__":
    main()

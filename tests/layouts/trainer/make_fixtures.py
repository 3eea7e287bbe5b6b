"""Trains with what is built on the Trainer, and resumes: `make fixtures` writes fixtures/ and fixtures/resumed.json.

Each directory in fixtures/ holds one checkpoint of a run; that of sentence-transformers two, and the model by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, pre_tokenizers
from train import resumed_from_each, watched
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

FIXTURES = Path(__file__).parent / "fixtures"
TOKENS = ("<pad>", "<unk>", "<s>", "</s>")
SIZES = {
    "vocab_size": 64, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 32, "pad_token_id": 60, "bos_token_id": 62, "eos_token_id": 63,
}  # fmt: skip
COMMON = {
    "per_device_train_batch_size": 4, "save_steps": 4, "num_train_epochs": 2, "logging_steps": 1, "report_to": [],
    "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3, "warmup_steps": 2, "save_total_limit": 2,
}  # fmt: skip
TEXTS = [f"w{i} w{(i + 1) % 60} w{(i + 2) % 60} w{(i + 3) % 60}" for i in range(24)]


def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: i for i, word in enumerate([*(f"w{i}" for i in range(60)), *TOKENS])}
    fast = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), TOKENS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=fast, model_max_length=32, **names)


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=1))


def sentences(out: Path, callbacks: list) -> SentenceTransformerTrainer:
    """A dense layer, whose weights lie in a directory of their own."""
    BertModel(BertConfig(**SIZES)).save_pretrained(out / "bert")
    tokenizer().save_pretrained(out / "bert")
    model = SentenceTransformer(modules=[Transformer(str(out / "bert")), Pooling(8), Dense(8, 4), Normalize()])
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(str(out / "run"), **COMMON),
        train_dataset=Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS}),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=callbacks,
    )


def sft(out: Path, callbacks: list, **options) -> SFTTrainer:
    return SFTTrainer(
        model=llama(),
        args=SFTConfig(str(out / "run"), bf16=False, **COMMON),
        train_dataset=Dataset.from_dict({"text": TEXTS}),
        processing_class=tokenizer(),
        callbacks=callbacks,
        **options,
    )


def sft_lora(out: Path, callbacks: list) -> SFTTrainer:
    from peft import LoraConfig

    return sft(out, callbacks, peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def dpo(out: Path, callbacks: list) -> DPOTrainer:
    pairs = {"prompt": TEXTS, "chosen": [f" {text}" for text in TEXTS], "rejected": [f" {t}" for t in TEXTS[::-1]]}
    return DPOTrainer(
        model=llama(),
        ref_model=llama(),
        args=DPOConfig(str(out / "run"), bf16=False, **COMMON),
        train_dataset=Dataset.from_dict(pairs),
        processing_class=tokenizer(),
        callbacks=callbacks,
    )


def reward(out: Path, callbacks: list) -> RewardTrainer:
    return RewardTrainer(
        model=LlamaForSequenceClassification(LlamaConfig(**SIZES, num_key_value_heads=1, num_labels=1)),
        args=RewardConfig(str(out / "run"), bf16=False, **COMMON),
        train_dataset=Dataset.from_dict({"chosen": TEXTS, "rejected": TEXTS[::-1]}),
        processing_class=tokenizer(),
        callbacks=callbacks,
    )


VARIANTS = {"sentences": sentences, "sft": sft, "sft-lora": sft_lora, "dpo": dpo, "reward": reward}


def make(variant: str, out: Path) -> dict[str, object]:
    """Train, keep what the tests look at, resume from it."""

    def trainer(*callbacks):
        set_seed(0)
        return VARIANTS[variant](out, list(callbacks))

    first = trainer()
    batches, _ = watched(first)
    first.train()
    shutil.rmtree(FIXTURES / variant, ignore_errors=True)
    left_out = ["README.md"] if variant == "sentences" else ["README.md", "checkpoint-12"]
    shutil.copytree(out / "run", FIXTURES / variant, ignore=shutil.ignore_patterns(*left_out))
    if variant == "sentences":
        first.model.save_pretrained(str(FIXTURES / variant / "model"), create_model_card=False)
    return {"batches": batches, "resumed": resumed_from_each(trainer, FIXTURES / variant)}


def main() -> None:
    """Make every variant."""
    seen = {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            seen[variant] = make(variant, Path(work))
    (FIXTURES / "resumed.json").write_text(json.dumps(seen, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

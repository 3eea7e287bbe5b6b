"""Trains a tiny model with the transformers Trainer and keeps its checkpoints: `train.py OUT VARIANT`.

OUT/run holds the checkpoints. With `resume`, OUT/resumed.json says what the real Trainer did when it resumed from each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

SAMPLES, BATCH = 44, 4
SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip


class Numbers(torch.utils.data.Dataset):
    """Sample i begins with the token i, by which a batch tells what it is made of."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        tokens = torch.arange(i, i + 8) % 64
        return {"input_ids": tokens, "labels": tokens}


class Watch(TrainerCallback):
    """What a resumed run did first."""

    def __init__(self):
        self.seen = {}

    def on_train_begin(self, args, state, control, **kwargs):
        self.seen["started_at_step"] = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        self.seen.setdefault("first_step", state.global_step)
        self.seen["last_step"] = state.global_step
        control.should_save = False


def llama(**options):
    return LlamaForCausalLM(LlamaConfig(**SMALL, **options))


def lora(**options):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **options)
    return get_peft_model(llama(), config)


def mixtral():
    return MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1))


def frozen():
    model = llama()
    model.model.embed_tokens.weight.requires_grad_(False)
    return model


def t5():
    sizes = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))


MODELS = {
    "seq2seq": t5,
    "tied": lambda: llama(tie_word_embeddings=True),
    "lora": lora,
    "dora": lambda: lora(use_dora=True, modules_to_save=["lm_head"]),
    "mixtral": mixtral,
    "frozen": frozen,
    "bf16-weights": lambda: llama().to(torch.bfloat16),
}
ARGUMENTS = {
    "seq2seq": {"predict_with_generate": True, "eval_strategy": "steps", "eval_steps": 11, "generation_max_length": 6},
    "accumulated": {"gradient_accumulation_steps": 4, "save_steps": 2, "num_train_epochs": 3},
    "max-steps": {"max_steps": 12},
    "plateau": {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 4},
    "ddp": {"ddp_backend": "gloo"},
    "sharded": {"save_steps": 11},
    "weights-only": {"save_only_model": True},
    "no-skip": {"ignore_data_skip": True},
    "resumed-no-skip": {"ignore_data_skip": True},
    "sgd": {"optim": "sgd"},
    "adafactor": {"optim": "adafactor"},
    "bf16": {"bf16": True},
    "best": {
        "eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True, "metric_for_best_model": "loss",
        "save_total_limit": 2,
    },
}  # fmt: skip


def trainer(out: Path, variant: str, *callbacks):
    set_seed(0)
    arguments = {
        "per_device_train_batch_size": BATCH, "save_steps": 4, "num_train_epochs": 2, "logging_steps": 1, "report_to": [],
        "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3, "warmup_steps": 2,
    }  # fmt: skip
    generates = variant == "seq2seq"
    return (Seq2SeqTrainer if generates else Trainer)(
        model=MODELS.get(variant, llama)(),
        args=(Seq2SeqTrainingArguments if generates else TrainingArguments)(
            str(out / "run"), **(arguments | ARGUMENTS.get(variant, {}))
        ),
        train_dataset=Numbers(),
        eval_dataset=torch.utils.data.Subset(Numbers(), range(8)),
        callbacks=list(callbacks),
    )


def watched(trainer: Trainer) -> tuple[list[list[int]], list[float]]:
    """The first tokens of each batch that it will train, and the learning rate that each was trained with."""
    batches, rates = [], []
    original = trainer.training_step

    def step(model, inputs, *rest):
        batches.append(next(v for k, v in inputs.items() if k.endswith("input_ids"))[:, 0].tolist())
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return original(model, inputs, *rest)

    trainer.training_step = step
    return batches, rates


def resumed(make: Callable[..., Trainer], checkpoint: Path) -> dict[str, object]:
    """What a trainer by `make(callback)` does first when it resumes."""
    watch = Watch()
    again = make(watch)
    batches, rates = watched(again)
    again.train(resume_from_checkpoint=str(checkpoint))
    return {**watch.seen, "first_batch": batches[0] if batches else None, "batches": len(batches), "rates": rates[:1]}


def resumed_from_each(make: Callable[..., Trainer], run: Path) -> dict[str, object]:
    """The same for every checkpoint of a run, by name."""
    saves = sorted(run.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    return {p.name: resumed(make, p) for p in saves}


def main() -> None:
    out, variant = Path(sys.argv[1]), sys.argv[2]
    if variant == "ddp" and "LOCAL_RANK" not in os.environ:
        from forking import fork

        fork(2, main)
        return
    first = trainer(out, variant)
    batches, _ = watched(first)
    first.train()
    if variant == "best":
        first.save_model()
        first.save_state()
    if variant == "resumed-no-skip":
        again = trainer(out, variant)
        again.train(resume_from_checkpoint=str(out / "run" / "checkpoint-4"))
    if variant == "sharded":
        for checkpoint in (out / "run").iterdir():
            (checkpoint / "model.safetensors").unlink()
            first.model.save_pretrained(checkpoint, max_shard_size="8KB")
    if "resume" in sys.argv:
        found = resumed_from_each(lambda watch: trainer(out, variant, watch), out / "run")
        (out / "resumed.json").write_text(json.dumps({"batches": batches, "resumed": found}, indent=1))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

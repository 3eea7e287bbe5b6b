"""Trains with torchtune's recipes, saves and resumes: `train_torchtune.py` writes fixtures; see `make fixtures`.

A tiny Llama of two shards goes through the recipes for one device: `full` dies after two of three epochs, `ended` ran to its end, `adapter`
is LoRA and dies after one of two. resumed.json holds what each recipe did when it was resumed.
"""

from __future__ import annotations

import json
import logging
import os
import runpy
import shutil
import tempfile
from pathlib import Path

import torch
import torchtune
from omegaconf import OmegaConf
from transformers import LlamaConfig, LlamaForCausalLM

FIXTURES = Path(__file__).parent / "fixtures"
SIZES = {"vocab_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "embed_dim": 8, "max_seq_len": 8}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
ITEMS, BATCH = 8, 2
RECIPES = Path(torchtune.__file__).parents[1] / "recipes"  # in the package, but not to be imported
RECIPE = {
    "full": ("full_finetune_single_device.py", "FullFinetuneRecipeSingleDevice"),
    "adapter": ("lora_finetune_single_device.py", "LoRAFinetuneRecipeSingleDevice"),
}


class Interrupted(Exception):
    pass


class Numbers(torch.utils.data.Dataset):
    """Items that begin with their own numbers."""

    def __init__(self, tokenizer: object) -> None:
        pass

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"tokens": [index, 1, 2, 3], "labels": [index, 1, 2, 3]}


class Tokenizer:
    pad_id = 0


def base_in(work: Path) -> Path:
    """A model as the hub has it, in two files."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 16,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, max_position_embeddings=8))
    model.save_pretrained(work / "base", max_shard_size=2500)
    return work / "base"


def settings(work: Path, run: str, epochs: int, *, resume: bool) -> dict[str, object]:
    output, lora = work / run, run == "adapter"
    files = list(SHARDS)
    if resume and not lora:
        newest = max(output.glob("epoch_*"))
        files = [f"{newest.name}/{file}" for file in SHARDS]
    model = {"_component_": "torchtune.models.llama3.llama3", **SIZES}
    if lora:
        chosen = {
            "lora_attn_modules": ["q_proj", "v_proj"],
            "apply_lora_to_mlp": False,
            "lora_rank": 2,
            "lora_alpha": 4,
        }
        model = {"_component_": "torchtune.models.llama3.lora_llama3", **SIZES, **chosen}
    return {
        "output_dir": str(output),
        "model": {**model, "intermediate_dim": 16},
        "tokenizer": {"_component_": "train_torchtune.Tokenizer"},
        "dataset": {"_component_": "train_torchtune.Numbers"},
        "checkpointer": {
            "_component_": "torchtune.training.FullModelHFCheckpointer",
            "checkpoint_dir": str(work / "base"),
            "checkpoint_files": files,
            "output_dir": str(output),
            "model_type": "LLAMA3",
        },
        "resume_from_checkpoint": resume,
        "optimizer": {"_component_": "torch.optim.AdamW", "lr": 1e-2, "fused": False},
        "lr_scheduler": {"_component_": "torchtune.training.get_cosine_schedule_with_warmup", "num_warmup_steps": 4},
        "loss": {"_component_": "torch.nn.CrossEntropyLoss"},
        "metric_logger": {"_component_": "torchtune.training.metric_logging.DiskLogger", "log_dir": str(work / "logs")},
        "seed": 7,
        "shuffle": True,
        "batch_size": BATCH,
        "epochs": epochs,
        "max_steps_per_epoch": None,
        "gradient_accumulation_steps": 1,
        "optimizer_in_bwd": False,
        "compile": False,
        "device": "cpu",
        "dtype": "fp32",
    }


def recipe_of(work: Path, run: str, epochs: int, *, resume: bool = False):
    configuration = OmegaConf.create(settings(work, run, epochs, resume=resume))
    file, kind = RECIPE["adapter" if run == "adapter" else "full"]
    recipe = runpy.run_path(str(RECIPES / file))[kind](cfg=configuration)
    recipe.setup(cfg=configuration)
    return recipe


def trained(work: Path, run: str, epochs: int, dies_after: int) -> list[list[list[int]]]:
    """Until the process dies at the first batch of an epoch; what is in each batch, by the epoch."""
    recipe, batches = recipe_of(work, run, epochs), [[] for _ in range(epochs)]
    step = recipe._loss_step

    def watched(batch):
        batches[recipe.epochs_run].append(items_of(batch))
        if recipe.epochs_run == dies_after:
            raise Interrupted
        return step(batch)

    recipe._loss_step = watched
    try:
        recipe.train()
    except Interrupted:
        return batches
    return batches


def items_of(batch) -> list[int]:
    return [int(tokens[0]) for tokens in batch["tokens"]]


def resumed(work: Path, run: str, epochs: int) -> dict[str, object]:
    """The first batch that is trained: of which epoch, counted from 0, with what in it, after how many updates."""
    recipe, seen = recipe_of(work, run, epochs, resume=True), {}

    def watched(batch):
        updates = {int(state["step"]) for state in recipe._optimizer.state.values()}
        seen.update({"epoch": recipe.epochs_run, "items": items_of(batch), "updates": updates.pop()})
        seen["lr"] = recipe._optimizer.param_groups[0]["lr"]
        raise Interrupted

    recipe._loss_step = watched
    try:
        recipe.train()
    except Interrupted:
        return seen
    return {"nothing": recipe.epochs_run}


def main() -> None:
    logging.disable(logging.INFO)
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    seen = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        base_in(work)
        for run, epochs, dies_after in (("full", 3, 2), ("ended", 2, 2), ("adapter", 2, 1)):
            batches = trained(work, run, epochs, dies_after)
            shutil.copytree(work / run, FIXTURES / run)
            seen[run] = {**resumed(work, run, epochs), "unbroken": batches}
    (FIXTURES / "resumed.json").write_text(json.dumps(seen, sort_keys=True) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

"""Trains with DeepSpeed on two CPU ranks, by the Trainer and by Accelerate, and resumes: `make fixtures` writes fixtures/.

fixtures/trainer-* hold a run's checkpoint-N, fixtures/accelerate-* what `save_state` wrote; fixtures/resumed.json says what each did
batch by batch, unbroken and when it resumed. The scripts that DeepSpeed copies beside them are left out.

Accelerate keeps DeepSpeed for GPUs. One stand-in makes it take gloo and the CPU in their place (`on_cpu`); all else is the libraries'
own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch
from watching import SAVED, Saves, watched

FIXTURES = Path(__file__).parent / "fixtures"
STAGES = {"zero0-scheduled": 0, "zero1-scheduled": 1, "zero2": 2, "zero3": 3, "zero3-gathered": 3}
VARIANTS = (
    "trainer-zero1-scheduled", "trainer-zero2", "trainer-zero3", "trainer-zero3-gathered", "accelerate-zero0-scheduled",
    "accelerate-zero2", "accelerate-zero3",
)  # fmt: skip
WITH_TWO = ("trainer-zero2", "trainer-zero3", "accelerate-zero2", "accelerate-zero3")
SMALL = {
    "vocab_size": 16, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip
SECONDS = 180


def main() -> None:
    """Make every variant, or those that are named; each in a process group of its own."""
    record = FIXTURES / "resumed.json"
    seen = json.loads(record.read_text()) if record.exists() else {}
    for variant in [name for name in sys.argv[1:] if name in VARIANTS] or VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            launch(Path(work), variant)
            shutil.rmtree(FIXTURES / variant, ignore_errors=True)
            shutil.copytree(Path(work) / "saves", FIXTURES / variant, ignore=shutil.ignore_patterns("*.py"))
            seen[variant] = json.loads((Path(work) / "resumed.json").read_text())
    record.write_text(json.dumps(seen, sort_keys=True) + "\n")


def launch(work: Path, variant: str) -> None:
    ranks = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, *ranks, __file__, "--rank", str(work), variant]
    subprocess.run(command, env=environment, check=True, timeout=SECONDS)


def on_cpu() -> None:
    """Gloo and the CPU in the place of GPUs; and no operator of DeepSpeed's, which take minutes to build."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    def backend(self, cpu=False, sagemaker_dp=False, backend=None):
        return "gloo", DistributedType.MULTI_CPU

    PartialState._prepare_backend = backend
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None


def config_of(variant: str) -> dict[str, object]:
    """ZeRO of a stage, with a scheduler of DeepSpeed's own where it is `scheduled`."""
    zero = {"stage": STAGES[variant], "stage3_gather_16bit_weights_on_model_save": "gathered" in variant}
    config = {"zero_optimization": zero, "zero_allow_untested_optimizer": True}
    if "scheduled" in variant:
        warmup = {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 2}
        config["scheduler"] = {"type": "WarmupLR", "params": warmup}
    return config


def trained(work: Path, variant: str) -> dict[str, object]:
    """Nine updates of the Trainer, six of them an epoch, batch by batch, and those of runs that resumed in either."""

    def run(updates: tuple[int, ...], checkpoint: str | None = None) -> list[dict[str, object]]:
        running = trainer(work, variant, Saves(*updates))

        def counters():
            return {"engine_steps": running.deepspeed.global_steps, "lr": running.deepspeed.get_lr()[0]}

        batches = watched(running, counters)
        running.train(resume_from_checkpoint=checkpoint and str(work / "saves" / checkpoint))
        return batches

    unbroken = run(SAVED)
    return {"unbroken": unbroken, "resumed": {name: run((), name) for name in ("checkpoint-2", "checkpoint-8")}}


def trainer(work: Path, variant: str, saves: Saves):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 44

        def __getitem__(self, i):
            tokens = torch.arange(i, i + 8) % 16
            return {"input_ids": tokens, "labels": tokens}

    set_seed(0)
    sizes = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
    }
    arguments = TrainingArguments(
        str(work / "saves"), deepspeed={**config_of(variant), **sizes}, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, save_steps=2, max_steps=9, logging_steps=1, report_to=[], disable_tqdm=True,
        learning_rate=1e-3, warmup_steps=2, save_total_limit=None, save_strategy="steps",
    )  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    return Trainer(model=model, args=arguments, train_dataset=Numbers(), callbacks=[saves])


def accelerated(work: Path, variant: str) -> dict[str, object]:
    """Two saves, and what `load_state` of the first restored."""
    from accelerate import Accelerator
    from accelerate.utils import DeepSpeedPlugin, DummyScheduler, set_seed

    sizes = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}
    plugin = DeepSpeedPlugin(hf_ds_config={**config_of(variant), **sizes})
    accelerator = Accelerator(deepspeed_plugin=plugin, gradient_accumulation_steps=2)
    set_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 3))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    own = torch.optim.lr_scheduler.StepLR
    scheduler = DummyScheduler(optimizer) if "scheduled" in variant else own(optimizer, 5, 0.5)
    data = torch.utils.data.DataLoader([torch.full((5,), float(i)) for i in range(48)], batch_size=2)
    model, optimizer, scheduler, data = accelerator.prepare(model, optimizer, scheduler, data)
    batches = []
    for number, batch in enumerate(data, 1):
        batches.append(batch[:, 0].tolist())
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if number in (4, 8):
            accelerator.save_state(str(work / "saves" / ("mid" if number == 4 else "end")))
    accelerator.load_state(str(work / "saves" / "mid"))
    counters = {"engine_steps": model.global_steps, "micro_steps": accelerator.step}
    data_of = {"unbroken": batches, "resumed": [batch[:, 0].tolist() for batch in data]}
    return {**counters, "lr": optimizer.param_groups[0]["lr"], **data_of}


def rank(work: Path, variant: str) -> None:
    kind, _, rest = variant.partition("-")
    seen = (trained if kind == "trainer" else accelerated)(work, rest)
    if torch.distributed.get_rank() == 0:
        (work / "resumed.json").write_text(json.dumps(seen))
        kept = ("checkpoint-2", "checkpoint-8", "mid", "end")[:: 1 if variant in WITH_TWO else 2]
        for save in (work / "saves").iterdir():
            if save.name not in kept:
                shutil.rmtree(save)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        on_cpu()
        rank(Path(sys.argv[2]), sys.argv[3])
    else:
        main()

"""Trains with FSDP2 on two CPU ranks, by Accelerate and by the Trainer, and resumes: `fsdp.py OUT`.

OUT/accelerate/VARIANT/mid and end are what `save_state` wrote, OUT/trainer/VARIANT/checkpoint-N what the Trainer did;
OUT/resumed.json says what each did when it resumed.

Accelerate keeps FSDP for GPUs. One stand-in makes it take gloo and the CPU in their place (`on_cpu`); wrapping, training, saving
and loading are the libraries' own.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

import torch
from forking import fork
from watching import SAVED, Saves, watched

BATCHES, HALFWAY = 8, 4
SMALL = {
    "vocab_size": 64, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip
FORMS = {"full": "FULL_STATE_DICT"}


def on_cpu() -> None:
    """Have Accelerate believe in GPUs that speak gloo, and put everything on the CPU."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    def backend(self, cpu=False, sagemaker_dp=False, backend=None):
        return "gloo", DistributedType.MULTI_GPU

    def set_device(self):
        self.device = torch.device("cpu")

    PartialState._prepare_backend, PartialState.set_device = backend, set_device


def by_rank() -> None:
    """A file for each rank, which scripts ask the saving functions for themselves; `save_state` can't."""
    from accelerate import accelerator

    for name in ("save_fsdp_model", "save_fsdp_optimizer", "load_fsdp_model", "load_fsdp_optimizer"):
        setattr(accelerator, name, functools.partial(getattr(accelerator, name), use_dcp=False))


def accelerated(out: Path, variant: str) -> dict[str, object]:
    """Two saves, and what `load_state` of the first restored."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import FullyShardedDataParallelPlugin, set_seed

    AcceleratorState._reset_state(reset_partial_state=True)
    form = FORMS.get(variant, "SHARDED_STATE_DICT")
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=form, reshard_after_forward=True)
    accelerator = Accelerator(fsdp_plugin=plugin)
    set_seed(0)
    widths = (6, 4) if variant == "two" else (6,)
    models = [torch.nn.Sequential(torch.nn.Linear(5, wide), torch.nn.Linear(wide, 3)) for wide in widths]
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-3) for model in models]
    schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5) for optimizer in optimizers]
    data = torch.utils.data.DataLoader([torch.full((5,), float(i)) for i in range(4 * BATCHES)], batch_size=2)
    if variant == "two":  # one call takes one model of FSDP2
        pairs = [accelerator.prepare(*pair) for pair in zip(models, optimizers, strict=True)]
        models, optimizers = zip(*pairs, strict=True)
        data, *schedulers = accelerator.prepare(data, *schedulers)
    else:
        models[0], optimizers[0], schedulers[0], data = accelerator.prepare(
            models[0], optimizers[0], schedulers[0], data
        )
    batches = []
    for number, batch in enumerate(data, 1):
        batches.append(batch[:, 0].tolist())
        for model, optimizer, scheduler in zip(models, optimizers, schedulers, strict=True):
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if number in (HALFWAY, BATCHES):
            accelerator.save_state(str(out / ("mid" if number == HALFWAY else "end")))
    accelerator.load_state(str(out / "mid"))
    states = next(iter(optimizers[0].optimizer.state.values()))
    rate, steps = optimizers[0].param_groups[0]["lr"], schedulers[0].scheduler.last_epoch
    again = [batch[:, 0].tolist() for batch in data]
    counters = {"updates": states["step"].item(), "lr": rate, "last_epoch": steps}
    return {**counters, "unbroken": batches, "resumed": again}


def trained(out: Path, variant: str) -> dict[str, object]:
    """Two epochs of the Trainer, batch by batch, and those of runs that resumed in either."""

    def run(updates: tuple[int, ...], checkpoint: str | None = None) -> list[dict[str, object]]:
        running = trainer(out, variant, Saves(*updates))

        def counters():
            state = next(iter(running.optimizer.optimizer.state.values()), {"step": torch.tensor(0)})
            return {"updates": state["step"].item(), "lr": running.optimizer.param_groups[0]["lr"]}

        batches = watched(running, counters)
        running.train(resume_from_checkpoint=checkpoint and str(out / checkpoint))
        return batches

    unbroken = run(SAVED)
    resumes = () if variant == "lora" else ("checkpoint-2", "checkpoint-8")
    return {"unbroken": unbroken, "resumed": {name: run((), name) for name in resumes}}


def trainer(out: Path, variant: str, saves: Saves):
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

    class Numbers(torch.utils.data.Dataset):
        def __len__(self):
            return 44

        def __getitem__(self, i):
            tokens = torch.arange(i, i + 8) % 64
            return {"input_ids": tokens, "labels": tokens}

    set_seed(0)
    fsdp = {
        "version": 2, "state_dict_type": FORMS.get(variant, "SHARDED_STATE_DICT"), "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
    }  # fmt: skip
    arguments = TrainingArguments(
        str(out), fsdp=True, fsdp_config=fsdp, per_device_train_batch_size=2, gradient_accumulation_steps=2, save_steps=2,
        num_train_epochs=2, logging_steps=1, report_to=[], disable_tqdm=True, learning_rate=1e-3, warmup_steps=2,
    )  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    if variant == "lora":
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    return Trainer(model=model, args=arguments, train_dataset=Numbers(), callbacks=[saves])


def main() -> None:
    if "LOCAL_RANK" not in os.environ:
        fork(2, main)
        return
    on_cpu()
    out = Path(sys.argv[1])
    seen = {f"trainer/{name}": trained(out / "trainer" / name, name) for name in ("sharded", "full", "lora")}
    for name in ("sharded", "full", "two", "ranks"):
        if name == "ranks":
            by_rank()
        seen[f"accelerate/{name}"] = accelerated(out / "accelerate" / name, name)
    if torch.distributed.get_rank() == 0:
        (out / "resumed.json").write_text(json.dumps(seen, indent=1))
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

"""One rank of a training: `trainer.py WORK VARIANT train`, or `again` to continue from what it left there."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from models import Megatrons, model_of
from variants import VARIANTS, Variant

MICRO_BATCH, ACCUMULATION, HALFWAY, END = 2, 2, 2, 4


def train(work: Path, variant: Variant) -> None:
    """Train, save halfway and at the end, then load what was saved last into a new engine."""
    saves, engine = str(work / "saves"), engine_of(variant)
    for step in range(1, END + 1):
        update(variant, engine, step)
        if step == HALFWAY and variant.halfway:
            engine.save_checkpoint(saves, client_state={"epoch": 0, "step_in_epoch": step})
    arguments = {"exclude_frozen_parameters": True} if variant.excluded else {}
    engine.save_checkpoint(saves, tag=variant.tag, client_state={"epoch": 1, "step_in_epoch": 0}, **arguments)
    resume(work, variant)
    if engine.global_rank == 0 and (variant.universal or variant.then):
        convert(work, f"global_step{END}", keep=bool(variant.then))


def again(work: Path, variant: Variant) -> None:
    """Go on from a universal checkpoint with another number of ranks, and save once more."""
    saves, engine = str(work / "saves"), engine_of(variant, load_universal=True)
    engine.load_checkpoint(saves, tag=f"global_step{END}_universal")
    update(variant, engine, END + 1)
    torch.distributed.barrier()
    if engine.global_rank == 0:
        shutil.rmtree(saves)
    torch.distributed.barrier()
    engine.save_checkpoint(saves, client_state={"epoch": 1, "step_in_epoch": 1})
    resume(work, variant)


def resume(work: Path, variant: Variant) -> None:
    """Load the last save into a new engine, and note what it restored."""
    saves, engine = work / "saves", engine_of(variant)
    strict = {"load_module_strict": False} if variant.excluded else {}
    path, client_state = engine.load_checkpoint(str(saves), **strict)
    names = ("global_steps", "global_samples", "skipped_steps", "micro_steps")
    counters = {name: getattr(engine, name) for name in names}
    progress = {key: client_state[key] for key in ("epoch", "step_in_epoch")}
    seen = {"path": os.path.relpath(path, saves), "client_state": progress, **counters, "lr": engine.get_lr()}
    if "fp16" in variant.more:
        scaler = engine.optimizer if variant.zero else engine.optimizer.loss_scale_config
        seen["scale"] = float(scaler.loss_scale if variant.zero else scaler.cur_scale)
    if engine.global_rank == 0:
        (work / "resumed.json").write_text(json.dumps(seen))


def convert(work: Path, tag: str, keep: bool) -> None:
    """Write the universal form of a save; the converter writes `latest_universal` beside. The save itself goes."""
    from deepspeed.checkpoint.ds_to_universal import main as to_universal

    tag_dir = work / "saves" / tag
    arguments = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    arguments |= {"inject_missing_state": True, "input_folder": str(tag_dir), "output_folder": f"{tag_dir}_universal"}
    to_universal(SimpleNamespace(**arguments))
    shutil.rmtree(tag_dir)
    if not keep:
        (work / "saves" / "latest").unlink()


def engine_of(variant: Variant, *, load_universal: bool = False):
    torch.manual_seed(0)
    model, mpu = model_of(variant.model), None
    trained = [p for p in model.parameters() if p.requires_grad]
    if variant.model in ("experts", "copies"):
        from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

        trained = split_params_into_different_moe_groups_for_optimizer({"params": trained, "name": "dense"})
    if variant.model == "shares":
        mpu = Megatrons()
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    if variant.fused:  # what apex's and DeepSpeed's own FusedAdam get, which need a GPU
        deepspeed.runtime.engine.FusedAdam = torch.optim.AdamW
    config = config_of(variant)
    if load_universal:
        config["checkpoint"] = {"load_universal": True}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, mpu=mpu)
    return engine


def config_of(variant: Variant) -> dict[str, object]:
    config = {"train_micro_batch_size_per_gpu": MICRO_BATCH, "gradient_accumulation_steps": ACCUMULATION}
    warmup = {"warmup_min_lr": variant.least_lr, "warmup_max_lr": 1e-3, "warmup_num_steps": 10}
    config |= {"scheduler": {"type": "WarmupLR", "params": warmup}, "zero_optimization": dict(variant.zero)}
    return config | {"zero_allow_untested_optimizer": True, **variant.more}


def update(variant: Variant, engine, step: int) -> None:
    if variant.model == "pipeline":
        kind = torch.bfloat16 if "bf16" in variant.more else torch.float32
        batch = (torch.ones(MICRO_BATCH, 5, dtype=kind), torch.ones(MICRO_BATCH, 3, dtype=kind))
        engine.train_batch(iter([batch] * ACCUMULATION))
        return
    for _ in range(ACCUMULATION):
        batch = torch.randn(MICRO_BATCH, 5).to(next(engine.module.parameters()).dtype)
        out = engine(batch)
        out = out * float("inf") if step in variant.overflows else out
        engine.backward(out.pow(2).mean())
        engine.step()


def main() -> None:
    work, variant = Path(sys.argv[1]), VARIANTS[sys.argv[2]]
    # DeepSpeed refuses fp16 on processors without its instructions; torch does the arithmetic all the same.
    get_accelerator().is_fp16_supported = lambda: True
    deepspeed.init_distributed(dist_backend="gloo")
    {"train": train, "again": again}[sys.argv[3]](work, variant)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

"""Trains with the strategies that write directories, on two CPU ranks: `strategies.py OUT VARIANT`; resumes from some.

OUT/checkpoints holds the directories, OUT/resumed.json says what came of a resume from each. Only `model-parallel` runs on a CPU as
Lightning has it. Lightning keeps the others to GPUs, and the classes below take no more than that away: FSDPOnCpu wraps the model with
the CPU as its device, DeepSpeedOnCpu leaves out the look at the accelerator and at the numbers of the GPUs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightning as pl
import torch
from forking import fork
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch.utils.data import DataLoader

RANKS, BATCHES = 2, 6
ACCUMULATED = {"zero3": 2}
RESUMED = {
    "model-parallel": ("epoch=1-step=8.ckpt",),
    "fsdp": ("epoch=1-step=8.ckpt",),
    "zero2": ("epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"),
    "zero3": ("end-epoch=0-step=3.ckpt", "epoch=1-step=4.ckpt"),
}


class FSDPOnCpu(FSDPStrategy):
    def _setup_model(self, model):
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)


class DeepSpeedOnCpu(DeepSpeedStrategy):
    def setup_environment(self):
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self):
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self):
        return torch.device("cpu", self.local_rank)


def strategy(variant):
    if variant == "model-parallel":
        return ModelParallelStrategy(data_parallel_size=RANKS, tensor_parallel_size=1)
    if variant == "fsdp":
        return FSDPOnCpu(state_dict_type="sharded", process_group_backend="gloo")
    return DeepSpeedOnCpu(stage=int(variant[-1]), process_group_backend="gloo")


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return BATCHES * RANKS * 2

    def __getitem__(self, i):
        return torch.full((4,), float(i))


class Net(pl.LightningModule):
    def __init__(self, variant):
        super().__init__()
        self.save_hyperparameters()
        self.variant = variant
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
        self.seen = []

    def configure_model(self):
        if self.variant == "model-parallel":
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.layers, mesh=self.device_mesh["data_parallel"])
            fully_shard(self, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, index):
        if not self.seen:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            first = {"batch": index, "data": batch[:, 0].tolist(), "lr": rate, "epoch": self.trainer.current_epoch}
            self.seen.append({**first, "global_step": self.trainer.global_step})
        else:
            self.seen.append(index)
        return self.layers(batch).pow(2).mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 1e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def trainer(out, variant, callbacks):
    return pl.Trainer(
        default_root_dir=out, max_epochs=2, accelerator="cpu", devices=RANKS, strategy=strategy(variant), logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, enable_checkpointing=bool(callbacks),
        accumulate_grad_batches=ACCUMULATED.get(variant, 1),
    )  # fmt: skip


def main() -> None:
    out, variant = Path(sys.argv[1]), sys.argv[2]
    if "LOCAL_RANK" not in os.environ:
        fork(RANKS, main)
        return
    pl.seed_everything(0, verbose=False)
    folder, every = out / "checkpoints", 4 // ACCUMULATED.get(variant, 1)
    mid = ModelCheckpoint(
        folder, every_n_train_steps=every, save_top_k=-1, save_last="link", save_on_train_epoch_end=False
    )
    end = ModelCheckpoint(folder, filename="end-{epoch}-{step}", save_top_k=-1, every_n_epochs=1)
    loader = DataLoader(Numbers(), batch_size=2)
    trainer(out, variant, [mid, end]).fit(Net(variant), loader)
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.name in RESUMED[variant]):
        net = Net(variant)
        trainer(out / "again", variant, []).fit(net, loader, ckpt_path=path, weights_only=False)
        found[path.name] = {"first": net.seen[:1], "batches": len(net.seen)}
    if int(os.environ["LOCAL_RANK"]) == 0:
        (out / "resumed.json").write_text(json.dumps(found, indent=1))
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

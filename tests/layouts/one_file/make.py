"""Writes one-file checkpoints: `make.py OUT DIALECT`. detectron2's are written by fvcore, mmengine's by mmengine.

The others are built key by key as their trainers' sources do, around a model and an optimizer that were really trained.
"""

from __future__ import annotations

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import torch

STEPS = 6


def trained(steps: int = STEPS):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 9])
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def nanogpt(out: Path) -> None:
    model, optimizer, _ = trained()
    checkpoint = {
        "model": OrderedDict((f"_orig_mod.{k}", v) for k, v in model.state_dict().items()),
        "optimizer": optimizer.state_dict(),
        "model_args": {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 16, "bias": False, "vocab_size": 65},
        "iter_num": STEPS,
        "best_val_loss": torch.tensor(2.5),
        "config": {"max_iters": 100, "gradient_accumulation_steps": 5, "dtype": "bfloat16", "learning_rate": 1e-3},
    }
    torch.save(checkpoint, out / "ckpt.pt")


def fairseq(out: Path) -> None:
    model, optimizer, _ = trained()
    checkpoint = {
        "args": None,
        "cfg": {"common": {"seed": 1}, "optimization": {"max_update": 100}},
        "model": model.state_dict(),
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "CrossEntropyCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": STEPS,
            }
        ],
        "task_state": {},
        "extra_state": {
            "metrics": {},
            "previous_training_time": 1.0,
            "train_iterator": {"version": 2, "epoch": 2, "iterations_in_epoch": 2, "shuffle": True},
            "val_loss": 1.5,
        },
        "last_optimizer_state": optimizer.state_dict(),
    }
    torch.save(checkpoint, out / "checkpoint_last.pt")


def timm(out: Path) -> None:
    model, optimizer, _ = trained()
    checkpoint = {
        "epoch": 2,
        "arch": "resnet10t",
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="resnet10t", epochs=10, lr=1e-3),
        "metric": 71.5,
        "saver": {"checkpoint_files": [("checkpoint-1.pth.tar", 70.0)], "best_epoch": 1, "best_metric": 70.0},
    }
    torch.save(checkpoint, out / "last.pth.tar")
    torch.save(checkpoint, out / "recovery-2-50.pth.tar")


def detectron2(out: Path) -> None:
    from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

    for steps in (3, STEPS):
        model, optimizer, scheduler = trained(steps)
        whole = Checkpointer(model, str(out), optimizer=optimizer, scheduler=scheduler)
        PeriodicCheckpointer(whole, 3, max_iter=100).step(steps - 1)


def mmengine(out: Path) -> None:
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    class Net(BaseModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, inputs, mode=None):
            return {"loss": self.layer(inputs).pow(2).mean()}

        def train_step(self, data, optim_wrapper):
            loss = self(data)["loss"]
            optim_wrapper.update_params(loss)
            return {"loss": loss}

    Runner(
        Net(),
        str(out),
        train_dataloader=DataLoader([torch.full((4,), float(i)) for i in range(10)], batch_size=2),
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}},
        param_scheduler=[{"type": "MultiStepLR", "milestones": [2], "by_epoch": True}],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        log_level="ERROR",
        default_scope="mmengine",
    ).train()


def ultralytics(out: Path) -> None:
    model, optimizer, _ = trained()
    checkpoint = {
        "epoch": 2,
        "best_fitness": 0.5,
        "model": None,
        "ema": model.half(),
        "updates": STEPS,
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "train_args": {"epochs": 5, "model": "yolo11n.yaml", "save_dir": "/elsewhere/runs/train"},
        "train_metrics": {"fitness": 0.5},
        "date": "2026-01-01",
        "version": "8.4.190",
    }
    torch.save(checkpoint, out / "last.pt")
    stripped = {**checkpoint, "epoch": -1, "optimizer": None, "updates": None, "ema": None, "model": model}
    torch.save(stripped, out / "best.pt")


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]))

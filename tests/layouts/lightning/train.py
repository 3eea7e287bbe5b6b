"""Trains with Lightning and keeps its checkpoints: `train.py OUT VARIANT`; with `resume`, OUT/resumed.json says what came of it.

OUT/checkpoints holds the files.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightning as pl
import torch
import torch.optim.lr_scheduler as lr
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch.utils.data import DataLoader

BATCHES = 12


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return BATCHES * 2

    def __getitem__(self, i):
        return torch.full((4,), float(i))


class Net(pl.LightningModule):
    def __init__(self, variant):
        super().__init__()
        self.save_hyperparameters()
        self.variant = variant
        self.automatic_optimization = variant != "manual"
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
        if variant == "thawed":
            self.backbone = self.layers[0]
        self.seen, self.rates = [], []

    def training_step(self, batch, index):
        self.seen.append([index, batch[:, 0].tolist()])
        self.rates.append(
            self.optimizers(use_pl_optimizer=False)[0].param_groups[0]["lr"]
            if self.variant == "manual"
            else self.optimizers(use_pl_optimizer=False).param_groups[0]["lr"]
        )
        loss = self.layers(batch).pow(2).mean()
        if self.variant == "manual":
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.layers(batch).pow(2).mean())
                optimizer.step()
            self.lr_schedulers()[0].step()
        return loss

    def on_train_epoch_end(self):
        if self.variant == "manual":
            self.lr_schedulers()[1].step()

    def configure_optimizers(self):
        if self.variant == "manual":
            both = [torch.optim.Adam(layer.parameters(), lr=1e-3) for layer in self.layers]
            return both, [warmed_up(both[0]), lr.StepLR(both[1], 1, 0.5)]
        optimizer = (
            torch.optim.SGD(self.parameters(), 1e-4)
            if self.variant == "sgd"
            else torch.optim.AdamW(self.parameters(), 1e-3)
        )
        if self.variant == "thawed":
            return torch.optim.AdamW(self.layers[1].parameters(), 1e-3)
        if self.variant in ("unscheduled", "max-steps"):
            return optimizer
        interval = "epoch" if self.variant in ("by-epoch", "averaged", "every-other") else "step"
        schedules = [{"scheduler": s, "interval": interval} for s in self.schedules(optimizer)]
        if self.variant in ("sgd", "every-other"):
            schedules[0]["frequency"] = 2
        return [optimizer], schedules

    def schedules(self, optimizer):
        match self.variant:
            case "sgd":
                return [warmed_up(optimizer)]
            case "bf16":
                return [lr.OneCycleLR(optimizer, 1e-2, total_steps=3 * BATCHES)]
            case "linked":
                return [lr.CosineAnnealingWarmRestarts(optimizer, 5)]
            case "ddp":
                return [
                    lr.ChainedScheduler([lr.LinearLR(optimizer, 0.1, total_iters=4), lr.ExponentialLR(optimizer, 0.9)])
                ]
        return [lr.StepLR(optimizer, 5, 0.5)]


def warmed_up(optimizer):
    """A sequence that continues to its second part in the first epoch, and to its third in the second."""
    parts = [
        lr.LinearLR(optimizer, 0.1, total_iters=4),
        lr.ExponentialLR(optimizer, 0.9),
        lr.CosineAnnealingLR(optimizer, 30),
    ]
    return lr.SequentialLR(optimizer, parts, [4, 8])


OPTIONS = {
    "accumulated": {"accumulate_grad_batches": 2},
    "bf16": {"precision": "bf16-mixed"},
    "ddp": {"devices": 2, "strategy": "ddp"},
    "max-steps": {"max_steps": 33},
}
CALLBACKS = {
    "averaged": lambda: [StochasticWeightAveraging(1e-3, swa_epoch_start=1, annealing_epochs=2)],
    "thawed": lambda: [BackboneFinetuning(1, backbone_initial_lr=1e-4)],
    "late-average": lambda: [EMAWeightAveraging(decay=0.9, update_starting_at_step=20)],
}


def trainer(out, variant, **more):
    save = ModelCheckpoint(
        out / "checkpoints", every_n_train_steps=5, save_top_k=-1, save_last="link" if variant == "linked" else True,
        save_weights_only=variant == "weights-only", save_on_train_epoch_end=False,
    )  # fmt: skip
    ends = ModelCheckpoint(out / "checkpoints", filename="end-{epoch}-{step}", save_top_k=-1, every_n_epochs=1)
    options = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    callbacks = [save, ends, *CALLBACKS.get(variant, list)()]
    return pl.Trainer(default_root_dir=out, callbacks=callbacks, **(options | OPTIONS.get(variant, {}) | more))


def main() -> None:
    out, variant = Path(sys.argv[1]), sys.argv[2]
    pl.seed_everything(0, verbose=False)
    loader = DataLoader(Numbers(), batch_size=2)
    trainer(out, variant).fit(Net(variant), loader)
    if "resume" in sys.argv and os.environ.get("LOCAL_RANK", "0") == "0":
        found = {}
        for path in sorted((out / "checkpoints").glob("*.ckpt")):
            net = Net(variant)
            again = pl.Trainer(
                default_root_dir=out / "again",
                max_epochs=3,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
                **OPTIONS.get(variant, {}),
            )
            steps = {}

            class Watch(pl.Callback):
                def on_train_batch_start(self, trainer, module, batch, index, steps=steps):
                    steps.setdefault("epoch", trainer.current_epoch)
                    steps.setdefault("global_step", trainer.global_step)

            again.callbacks.append(Watch())
            again.fit(net, loader, ckpt_path=path, weights_only=False)
            found[path.name] = {
                **steps,
                "first": net.seen[0] if net.seen else None,
                "batches": len(net.seen),
                "rates": net.rates[:1],
            }
        (out / "resumed.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

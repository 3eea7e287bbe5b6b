"""Trains with timm, saves and resumes: `train_timm.py` writes fixtures/timm; see `make fixtures`.

The loop is as short as one can be around timm's optimizer, schedule, CheckpointSaver and resume_checkpoint, in the order of its
training script, which is not in the package.
"""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

import torch
from stand_in import stand_in_for_torchvision
from written import FIXTURES, write_seen

stand_in_for_torchvision()

from timm.models import resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3

EPOCHS, BATCHES, DIES_IN, DIES_AT = 6, 4, 3, 2
METRICS = [50.0, 60.0, 55.0]
KEPT = ("last.pth.tar", "model_best.pth.tar", "checkpoint-1.pth.tar", "recovery-3-2.pth.tar")


class Run:
    def __init__(self, work: Path, *, averaged: bool) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
        self.optimizer = create_optimizer_v2(self.model, opt="adamw", lr=1e-2, weight_decay=0.05)
        scheduling = {"sched": "step", "num_epochs": EPOCHS, "decay_epochs": 2, "warmup_epochs": 1, "warmup_lr": 1e-4}
        self.scheduler, _ = create_scheduler_v2(self.optimizer, **scheduling)
        args = Namespace(model="tiny", epochs=EPOCHS, lr=1e-2, opt="adamw", sched="step")
        average = ModelEmaV3(self.model, decay=0.9) if averaged else None
        self.saver = CheckpointSaver(
            self.model,
            self.optimizer,
            args,
            model_ema=average,
            checkpoint_dir=str(work),
            recovery_dir=str(work),
            max_history=2,
        )

    def train(self) -> None:
        """Until the process dies within an epoch, after a recovery file was written."""
        for epoch in range(EPOCHS):
            for batch in range(BATCHES):
                self.optimizer.zero_grad()
                self.model(torch.randn(8, 4)).pow(2).mean().backward()
                self.optimizer.step()
                if (epoch, batch) == (DIES_IN, DIES_AT):
                    self.saver.save_recovery(epoch, batch_idx=batch)
                    return
            self.saver.save_checkpoint(epoch, metric=METRICS[epoch])
            self.scheduler.step(epoch + 1, METRICS[epoch])

    def resumed(self, file: Path) -> dict[str, object]:
        """The epoch that is trained first, counted from 0 as timm does, and its learning rate."""
        epoch = resume_checkpoint(self.model, str(file), optimizer=self.optimizer, log_info=False)
        self.scheduler.step(epoch)
        updates = {int(state["step"]) for state in self.optimizer.state.values()}
        return {"epoch": epoch, "updates": updates.pop(), "lr": self.optimizer.param_groups[0]["lr"]}


def main() -> None:
    shutil.rmtree(FIXTURES / "timm", ignore_errors=True)
    for name, kept in {"run": KEPT, "averaged": KEPT[:1]}.items():
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            Run(work, averaged=name == "averaged").train()
            target = FIXTURES / "timm" / name
            target.mkdir(parents=True)
            for file in kept:
                shutil.copy2(work / file, target)
            write_seen("timm", name, {file: Run(work, averaged=False).resumed(work / file) for file in kept})


if __name__ == "__main__":
    main()

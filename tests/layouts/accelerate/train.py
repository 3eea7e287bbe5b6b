"""Trains with Accelerate and keeps what `save_state` writes: `train.py OUT VARIANT` writes OUT/mid and OUT/end; resumes from OUT/mid.

OUT/resumed.json says what the real library did.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.optim.lr_scheduler as lr
from accelerate import Accelerator
from accelerate.utils import set_seed
from forking import fork
from torch.utils.data import DataLoader

BATCHES = 12


class Counter:
    """The script's own progress, as people keep it."""

    def __init__(self):
        self.epoch = self.step = 0

    def state_dict(self):
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state):
        self.__dict__.update(state)


def warmed_up(optimizer):
    """A sequence that continues to its second part in the first epoch."""
    return lr.SequentialLR(
        optimizer, [lr.LinearLR(optimizer, 0.1, total_iters=4), lr.CosineAnnealingLR(optimizer, 60)], [4]
    )


def main() -> None:
    out, variant = Path(sys.argv[1]), sys.argv[2]
    if variant == "ddp" and "LOCAL_RANK" not in os.environ:
        fork(2, main)
        return
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    data = DataLoader([torch.full((4,), float(i)) for i in range(2 * BATCHES)], batch_size=2)
    parts = [model, optimizer, data]
    if variant != "unscheduled":
        parts.append(lr.StepLR(optimizer, 5, 0.5) if variant in ("plain", "counted") else warmed_up(optimizer))
    if variant == "two-models":
        second = torch.nn.Linear(1, 2)
        other = torch.optim.SGD(second.parameters(), 1e-2)
        parts += [second, other, lr.ChainedScheduler([lr.LinearLR(other, 0.1, total_iters=4), lr.StepLR(other, 5)])]
    model, optimizer, data, *rest = accelerator.prepare(*parts)
    counter = Counter()
    if variant == "counted":
        accelerator.register_for_checkpointing(counter)
    safe, unbroken = variant != "pickled", []
    for epoch in range(2):
        counter.epoch = epoch
        for index, batch in enumerate(data):
            counter.step = index + 1
            unbroken.append(batch[:, 0].tolist())
            model(batch).pow(2).mean().backward()
            optimizer.step()
            if variant != "unscheduled":
                rest[0].step()
            optimizer.zero_grad()
            if variant == "two-models":
                rest[1](model(batch)).pow(2).mean().backward()
                rest[2].step()
                rest[3].step()
                rest[2].zero_grad()
            if epoch == 1 and index == 3:
                accelerator.save_state(str(out / "mid"), safe_serialization=safe)
    accelerator.save_state(str(out / "end"), safe_serialization=safe)
    accelerator.load_state(str(out / "mid"))
    if accelerator.is_main_process:
        state = optimizer.state_dict()["state"]
        again = {"unbroken": unbroken, "resumed": [batch[:, 0].tolist() for batch in data]}
        seen = {"updates": state[0]["step"].item(), "lr": optimizer.param_groups[0]["lr"], **again}
        (out / "resumed.json").write_text(json.dumps(seen))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

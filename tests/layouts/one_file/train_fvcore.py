"""Trains with fvcore's checkpointers, saves and resumes: `train_fvcore.py` writes fixtures/detectron2; see `make fixtures`.

detectron2 is not to be had from the package registry. What it saves is the work of fvcore, which is run here around a loop as
short as that of its plain_train_net (`plain`), and around an object with the keys of its DefaultTrainer (`trainer`).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer
from written import FIXTURES, write_seen

PERIOD, END = 3, 8
KEPT = ("model_0000002.pth", "model_0000005.pth", "model_final.pth")


class Plain:
    """Optimizer and scheduler are saved beside the model, and the iteration is handed over at each step."""

    def __init__(self, work: Path) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [4, 6])
        self.iter = 0
        self.checkpointer = Checkpointer(self.model, str(work), **self.parts())
        self.periodic = PeriodicCheckpointer(self.checkpointer, PERIOD, max_iter=END)

    def parts(self) -> dict[str, object]:
        return {"optimizer": self.optimizer, "scheduler": self.scheduler}

    def resumed_at(self) -> int:
        return self.checkpointer.resume_or_load("", resume=True).get("iteration", -1) + 1

    def train(self, first: int, last: int) -> None:
        for self.iter in range(first, last):
            self.optimizer.zero_grad()
            self.model(torch.randn(8, 4)).pow(2).mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            self.periodic.step(self.iter)


class Trainer(Plain):
    """The trainer is saved whole, with the iteration in it and the state of its hooks."""

    def parts(self) -> dict[str, object]:
        return {"trainer": self}

    def state_dict(self) -> dict[str, object]:
        inner = {"iteration": self.iter, "optimizer": self.optimizer.state_dict()}
        hooks = {"LRScheduler": self.scheduler.state_dict()}
        return {"iteration": self.iter, "hooks": hooks, "_trainer": inner}

    def load_state_dict(self, state: dict) -> None:
        self.iter = state["iteration"]
        self.scheduler.load_state_dict(state["hooks"]["LRScheduler"])
        self.optimizer.load_state_dict(state["_trainer"]["optimizer"])

    def resumed_at(self) -> int:
        super().resumed_at()
        return self.iter + 1


def main() -> None:
    shutil.rmtree(FIXTURES / "detectron2", ignore_errors=True)
    for name, kind in {"plain": Plain, "trainer": Trainer}.items():
        with tempfile.TemporaryDirectory() as temporary:
            work, seen = Path(temporary), {}
            kind(work).train(0, END)
            for file in KEPT:
                (work / "last_checkpoint").write_text(file)
                again = kind(work)
                first = again.resumed_at()
                seen[file] = {"iteration": first, "lr": again.optimizer.param_groups[0]["lr"]}
            target = FIXTURES / "detectron2" / name
            target.mkdir(parents=True)
            for file in (*KEPT[:2], "last_checkpoint"):
                shutil.copy2(work / file, target)
            (target / "last_checkpoint").write_text(KEPT[1])
            write_seen("detectron2", name, {file: seen[file] for file in KEPT[:2]})


if __name__ == "__main__":
    main()

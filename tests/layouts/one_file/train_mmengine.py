"""Trains with mmengine's Runner, saves and resumes: `train_mmengine.py` writes fixtures/mmengine; see `make fixtures`.

`epochs` is saved after each epoch, `iterations` every third iteration, `within` by iterations in a loop of epochs, `accumulated`
updates once in two iterations. Each is resumed from all that it saved; resumed.json holds what the first iteration then was.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from written import FIXTURES, write_seen

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # mmengine 0.10.7 loads its own classes as older torch did

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner

RUNS = {
    "epochs": {"loop": {"by_epoch": True, "max_epochs": 3}, "saving": {"interval": 1}},
    "iterations": {"loop": {"by_epoch": False, "max_iters": 8}, "saving": {"interval": 3, "by_epoch": False}},
    "within": {"loop": {"by_epoch": True, "max_epochs": 2}, "saving": {"interval": 3, "by_epoch": False}},
    "accumulated": {"loop": {"by_epoch": True, "max_epochs": 2}, "saving": {"interval": 1}, "accumulation": 2},
}
BATCHES = 4
KEPT = {
    "epochs": ("epoch_1.pth", "epoch_2.pth"),
    "iterations": ("iter_3.pth", "iter_6.pth"),
    "within": ("iter_3.pth", "iter_6.pth"),
    "accumulated": ("epoch_1.pth",),
}


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    """Each item is its own number, so that a batch says what is in it."""

    def __len__(self) -> int:
        return 2 * BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(index))


@MODELS.register_module()
class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, inputs, mode="tensor"):
        return {"loss": self.layer(torch.stack(list(inputs)) / 8).pow(2).mean()}

    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            losses = self(data, mode="loss")
        optim_wrapper.update_params(losses["loss"])
        return losses


@HOOKS.register_module()
class Watch(Hook):
    """What each iteration was."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        items = [int(each[0]) for each in data_batch]
        steps = {int(s["step"]) for s in runner.optim_wrapper.optimizer.state.values()} or {0}
        where = {"epoch": runner.epoch, "iter": runner.iter, "batch_idx": batch_idx}
        rate = runner.optim_wrapper.get_lr()["lr"][0]
        self.seen.append({**where, "items": items, "updates": steps.pop(), "lr": rate})


def runner_of(work: Path, run: str, **more: object) -> Runner:
    loop, saving = RUNS[run]["loop"], RUNS[run]["saving"]
    sampler = {"type": "DefaultSampler" if loop["by_epoch"] else "InfiniteSampler", "shuffle": True}
    wrapper = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 1e-2}}
    warmup = {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 5}
    steps = {"type": "MultiStepLR", "milestones": [1 if loop["by_epoch"] else 4], "by_epoch": loop["by_epoch"]}
    config = {
        "model": {"type": "Line"},
        "work_dir": str(work),
        "train_dataloader": {
            "batch_size": 2,
            "num_workers": 0,
            "dataset": {"type": "Numbers"},
            "sampler": sampler,
            "collate_fn": {"type": "pseudo_collate"},
        },
        "train_cfg": loop,
        "optim_wrapper": {**wrapper, "accumulative_counts": RUNS[run].get("accumulation", 1)},
        "param_scheduler": [warmup, steps],
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", **saving}},
        "custom_hooks": [{"type": "Watch"}],
        "log_level": "ERROR",
        "default_scope": "mmengine",
        "randomness": {"seed": 0},
        "experiment_name": f"{run}-{len(more)}-{more.get('load_from', '')}",
    }
    return Runner.from_cfg(Config({**config, **more}))


def seen_by(runner: Runner) -> list[dict[str, object]]:
    runner.train()
    return next(hook for hook in runner.hooks if isinstance(hook, Watch)).seen


def main() -> None:
    shutil.rmtree(FIXTURES / "mmengine", ignore_errors=True)
    for run, kept in KEPT.items():
        with tempfile.TemporaryDirectory() as name:
            work, resumed = Path(name) / "work", {}
            trained = seen_by(runner_of(work, run))
            for file in kept:
                (work / "last_checkpoint").write_text(str(work / file))
                first = seen_by(runner_of(Path(name) / f"from-{file}", run, resume=True, load_from=str(work / file)))[0]
                resumed[file] = {**first, "as_before": first in trained}
            target = FIXTURES / "mmengine" / run
            target.mkdir(parents=True)
            for file in (*kept, "last_checkpoint"):
                shutil.copy2(work / file, target)
            write_seen("mmengine", run, resumed)


if __name__ == "__main__":
    main()

"""Trains with DeepSpeed on two CPU ranks, saves and resumes: `make fixtures` writes fixtures/ and fixtures/resumed.json.

Each directory in fixtures/ is a save directory: two tags, or one where a second would show nothing new, and `latest`. The scripts
that DeepSpeed copies beside them are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

FIXTURES = Path(__file__).parent / "fixtures"
MICRO_BATCH, ACCUMULATION, HALFWAY, END = 2, 2, 2, 4
VARIANTS = ("zero0", "zero1", "zero2", "zero3", "frozen", "bf16", "moe", "pipeline", "universal", "named")
SECONDS = 180


def main() -> None:
    """Make every variant, or those that are named; each in a process group of its own."""
    seen_before = FIXTURES / "resumed.json"
    seen = json.loads(seen_before.read_text()) if seen_before.exists() else {}
    for variant in sys.argv[1:] or VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            launch(Path(work), variant)
            keep(Path(work) / "saves", FIXTURES / variant)
            seen[variant] = json.loads((Path(work) / "resumed.json").read_text())
    seen_before.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")


def launch(work: Path, variant: str) -> None:
    """Run this script on two ranks. DeepSpeed builds no operators: the optimizers are torch's own."""
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *ranks, __file__, "--rank", str(work), variant]
    subprocess.run(command, env=environment, check=True, timeout=SECONDS)


def keep(saves: Path, target: Path) -> None:
    """Copy a save directory without the conversion scripts."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(saves, target, ignore=shutil.ignore_patterns("*.py"))


def train(work: Path, variant: str) -> None:
    """Train, save halfway and at the end, then load what was saved halfway into a new engine."""
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo")
    run, saves = Run(variant), str(work / "saves")
    engine = run.engine()
    for step in range(1, END + 1):
        run.update(engine)
        if step == HALFWAY and variant in ("zero0", "zero2", "zero3"):
            engine.save_checkpoint(saves, client_state={"epoch": 0, "step_in_epoch": step})
    tag = "best" if variant == "named" else None
    engine.save_checkpoint(saves, tag=tag, client_state={"epoch": 1, "step_in_epoch": 0})
    resumed = run.engine()
    path, client_state = resumed.load_checkpoint(saves)
    seen = {"path": os.path.relpath(path, saves), "client_state": progress_of(client_state), **counters(resumed)}
    if engine.global_rank == 0:
        if variant == "universal":
            convert(work, f"global_step{END}")
        (work / "resumed.json").write_text(json.dumps(seen))


def progress_of(client_state: dict[str, object]) -> dict[str, object]:
    return {key: client_state[key] for key in ("epoch", "step_in_epoch")}


def counters(engine: object) -> dict[str, object]:
    names = ("global_steps", "global_samples", "skipped_steps", "micro_steps")
    return {name: getattr(engine, name) for name in names} | {"lr": engine.get_lr()}


def convert(work: Path, tag: str) -> None:
    """Replace the save by its universal form; the converter writes `latest_universal` beside."""
    from deepspeed.checkpoint.ds_to_universal import main as to_universal

    tag_dir = work / "saves" / tag
    arguments = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    arguments |= {"inject_missing_state": True, "input_folder": str(tag_dir), "output_folder": f"{tag_dir}_universal"}
    to_universal(SimpleNamespace(**arguments))
    shutil.rmtree(tag_dir)
    (work / "saves" / "latest").unlink()


class Run:
    """A tiny model of one kind, and how it is trained."""

    def __init__(self, variant: str) -> None:
        self.variant = variant

    def engine(self):
        import deepspeed
        import torch

        torch.manual_seed(0)
        model = self.model()
        trained = [p for p in model.parameters() if p.requires_grad]
        if self.variant == "moe":
            from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer

            trained = split_params_into_different_moe_groups_for_optimizer({"params": trained, "name": "dense"})
        optimizer = torch.optim.AdamW(trained, lr=1e-3)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=self.config())
        return engine

    def model(self):
        import torch

        if self.variant == "moe":
            return WithExperts()
        if self.variant == "pipeline":
            from deepspeed.pipe import PipelineModule

            return PipelineModule([torch.nn.Linear(5, 6), torch.nn.Linear(6, 3)], num_stages=2, loss_fn=squared)
        between = (
            torch.nn.Tanh() if self.variant == "bf16" else torch.nn.BatchNorm1d(6)
        )  # whose statistics stay float32
        model = torch.nn.Sequential(torch.nn.Linear(5, 6), between, torch.nn.Linear(6, 3))
        if self.variant == "frozen":
            model[0].requires_grad_(False)
        return model

    def config(self) -> dict[str, object]:
        stage = {"zero1": 1, "zero2": 2, "zero3": 3, "frozen": 2, "bf16": 1, "universal": 1, "named": 1}.get(
            self.variant, 0
        )
        config = {"train_micro_batch_size_per_gpu": MICRO_BATCH, "gradient_accumulation_steps": ACCUMULATION}
        warmup = {"warmup_min_lr": 0.0, "warmup_max_lr": 1e-3, "warmup_num_steps": 10}
        config |= {"scheduler": {"type": "WarmupLR", "params": warmup}, "zero_optimization": {"stage": stage}}
        config |= {"zero_allow_untested_optimizer": True, "bf16": {"enabled": self.variant == "bf16"}}
        return config

    def update(self, engine) -> None:
        import torch

        if self.variant == "pipeline":
            engine.train_batch(iter([(torch.ones(MICRO_BATCH, 5), torch.ones(MICRO_BATCH, 3))] * ACCUMULATION))
            return
        for _ in range(ACCUMULATION):
            batch = torch.randn(MICRO_BATCH, 5).to(next(engine.module.parameters()).dtype)
            engine.backward(engine(batch).pow(2).mean())
            engine.step()


def squared(output, target):
    return (output - target).pow(2).mean()


if __name__ != "__main__" or sys.argv[1:2] == ["--rank"]:
    import torch

    class WithExperts(torch.nn.Module):
        """A linear layer and two experts, one on each rank."""

        def __init__(self) -> None:
            from deepspeed.moe.layer import MoE

            super().__init__()
            self.first = torch.nn.Linear(5, 6)
            self.experts = MoE(6, torch.nn.Linear(6, 6), num_experts=2, ep_size=2, k=1, min_capacity=0)

        def forward(self, batch):
            return self.experts(self.first(batch))[0]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        train(Path(sys.argv[2]), sys.argv[3])
    else:
        main()

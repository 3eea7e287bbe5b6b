"""Saves and loads with torch_checkpointing on two CPU ranks: `train_torch_checkpointing.py` writes fixtures; see `make fixtures`.

The items are those of torchtitan: `plain` keeps whole tensors on each rank and writes no metadata, `sharded` keeps FSDP's shards with metadata.
resumed.json holds what rank 0 had after it loaded the newest save into new objects. The library gathers its metadata through CUDA alone; here
gloo does so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

FIXTURES = Path(__file__).parent / "fixtures"
RUNS, SAVED_AT, RANKS, SECONDS = ("plain", "sharded"), (2, 4), 2, 180


def gathered(manager: object, data: object, process_group: object = None) -> dict[int, object]:
    """The metadata of every rank, without CUDA."""
    found: list[object] = [None] * RANKS
    dist.all_gather_object(found, data, group=process_group)
    return dict(enumerate(found))


class Run:
    """A tiny model, trained as one or in shards."""

    def __init__(self, *, sharded: bool) -> None:
        from torch_checkpointing.checkpoint_manager import CheckpointManager
        from torch_checkpointing.config import AsyncCheckpointSaverConfig
        from torch_checkpointing.default_resharder import DefaultResharder
        from torch_checkpointing.metadata_manager import DefaultMetadataManager
        from torch_checkpointing.schema import ItemSpec
        from torch_checkpointing.staging import CheckpointStagerConfig

        DefaultMetadataManager._all_gather_pickled_data = gathered
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 4))
        if sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.model, mesh=init_device_mesh("cpu", (RANKS,)))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=8)
        self.progress = {"step": 0, "ntokens_seen": 0}
        spec = ItemSpec(resharder=DefaultResharder()) if sharded else ItemSpec()
        saving = AsyncCheckpointSaverConfig(staging_config=CheckpointStagerConfig(use_pinned_memory=False))
        self.manager = CheckpointManager.Config(items={"model": spec, "optimizer": spec}, save=saving).build()

    def items(self) -> dict[str, object]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        flat = StateDictOptions(flatten_optimizer_state_dict=True)
        return {
            "model": self.model.state_dict(),
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=flat),
            "lr_scheduler": self.scheduler.state_dict(),
            "dataloader": {f"dp_rank_{dist.get_rank()}": {"drawn": self.progress["step"]}, "world_size": RANKS},
            "train_state": self.progress,
        }

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.randn(3, 5)).pow(2).mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            self.progress = {"step": self.progress["step"] + 1, "ntokens_seen": self.progress["ntokens_seen"] + 15}


def train(work: Path, name: str) -> None:
    """On each rank: train, save twice, and load the last save into a new run."""
    dist.init_process_group("gloo")
    run = Run(sharded=name == "sharded")
    for step in SAVED_AT:
        run.train(step - run.progress["step"])
        run.manager.save(str(work / name / f"step-{step}"), run.items()).result()
    dist.barrier()  # the first rank renames what is whole
    again = Run(sharded=name == "sharded")
    again.train(1)
    loaded = again.manager.load(str(work / name / f"step-{SAVED_AT[-1]}"), into=again.items(), strict=True)
    counted = {int(value) for key, value in loaded["optimizer"].items() if key.endswith(".step")}
    run.manager.close()
    again.manager.close()
    if dist.get_rank() == 0:
        seen = {
            "step": loaded["train_state"]["step"],
            "updates": counted.pop(),
            "last_epoch": loaded["lr_scheduler"]["last_epoch"],
        }
        (work / f"{name}.json").write_text(json.dumps(seen))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir()
    seen = {}
    with tempfile.TemporaryDirectory(
        dir="/dev/shm"
    ) as temporary:  # it writes past the page cache, which not every disk allows
        work = Path(temporary)
        for name in RUNS:
            ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
            command = [sys.executable, *ranks, __file__, str(work), name]
            subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=SECONDS)
            shutil.copytree(work / name, FIXTURES / name, copy_function=shutil.copyfile)
            seen[name] = json.loads((work / f"{name}.json").read_text())
    (FIXTURES / "resumed.json").write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        train(Path(sys.argv[1]), sys.argv[2])
    else:
        main()

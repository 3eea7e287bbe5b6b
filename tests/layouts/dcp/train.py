"""Trains and saves with torch.distributed.checkpoint: `train.py OUT VARIANT`; OUT/step-2 and OUT/step-4, and OUT/resumed.json.

single: one process. fsdp2: two gloo ranks with fully_shard. titan: as torchtitan lays its state out. async: async_save.
huggingface: the model alone, as safetensors.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from forking import fork
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Progress:
    """torchtitan's train_state: a counter that is stored as bytes."""

    def __init__(self):
        self.step = 0

    def state_dict(self):
        return {"step": torch.tensor(self.step), "ntokens_seen": torch.tensor(self.step * 10)}

    def load_state_dict(self, state):
        self.step = int(state["step"])


def main() -> None:
    out, variant = Path(sys.argv[1]), sys.argv[2]
    ranks = 2 if variant in ("fsdp2", "titan", "huggingface") else 1
    if "LOCAL_RANK" not in os.environ:
        fork(ranks, main)
        return
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 31), torch.nn.Linear(31, 2))
    if ranks > 1:
        fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    progress = Progress()

    def state():
        weights, moments = get_state_dict(model, optimizer)
        parts = {"train_state": progress, "lr_scheduler": scheduler.state_dict()}
        if variant != "titan":
            return {"model": weights, "optimizer": moments, **parts}
        position = {"_num_yielded": progress.step, "_iterator_finished": False}
        loader = {f"dp_rank_{dist.get_rank()}": pickle.dumps(position), "world_size": ranks}
        return {**weights, "optimizer": moments, **parts, "dataloader": loader}

    for step in range(1, 5):
        model(torch.randn(2, 4)).pow(2).mean().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        progress.step = step
        if step % 2 == 0:
            target = out / f"step-{step}"
            if variant == "async":
                dcp.async_save(state(), checkpoint_id=target).result()
            elif variant == "huggingface":
                weights = get_state_dict(model, optimizer)[0]
                writer = dcp.HuggingFaceStorageWriter(path=str(target), save_distributed=True)
                dcp.save(weights, storage_writer=writer)
            else:
                dcp.save(state(), checkpoint_id=target)
    if variant != "huggingface":
        loaded = state()
        dcp.load(loaded, checkpoint_id=out / "step-2")
        if variant != "titan":
            set_state_dict(model, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
        updates = next(iter(optimizer.state.values()))["step"].item()
        if dist.get_rank() == 0:
            seen = {"step": progress.step, "updates": updates, "last_epoch": loaded["lr_scheduler"]["last_epoch"]}
            if variant != "titan":
                seen["lr"] = optimizer.param_groups[0]["lr"]
            (out / "resumed.json").write_text(json.dumps(seen))
    dist.barrier()
    os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


if __name__ == "__main__":
    main()

"""Saves of four gloo ranks in one run: `ranks.py OUT` writes OUT/<name>/step-2 of each kind, and OUT/loaded.json."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

RANKS = 4


def trained(model):
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.randn(2, 4)).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def network():
    return torch.nn.Sequential(torch.nn.Linear(4, 31), torch.nn.Linear(31, 3))


def sharded(mesh):
    """A model of which the last layer has fewer rows than there are ranks, and all that is saved of it."""
    model = fully_shard_each(network(), mesh)
    weights, moments = get_state_dict(model, trained(model))
    return {"model": weights, "optimizer": moments, "step": 2}


def fully_shard_each(model, mesh):
    fully_shard(model, mesh=mesh)
    return model


def first_fsdp():
    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    optimizer = trained(model)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.SHARDED_STATE_DICT):
        moments = FullyShardedDataParallel.optim_state_dict(model, optimizer)
        return {"model": model.state_dict(), "optimizer": moments, "step": 2}


def meshes():
    """Tensors over two dimensions of ranks: cut, cut twice, copied, smaller than there are ranks, and empty."""
    mesh, whole = init_device_mesh("cpu", (2, 2)), torch.arange(35.0).reshape(7, 5)
    placed = {"both": [Shard(0), Shard(1)], "twice": [Shard(0), Shard(0)], "copied": [Replicate(), Shard(1)]}
    tensors = {name: distribute_tensor(whole, mesh, places) for name, places in placed.items()}
    tensors["one"] = distribute_tensor(torch.ones(1, 3), mesh, [Shard(0), Shard(0)])
    return {"model": {**tensors, "empty": torch.empty(0, 3)}}


def refused():
    """What torch says to a sum that was not made yet."""
    part = DTensor.from_local(torch.ones(3, 2), init_device_mesh("cpu", (RANKS,)), [Partial()])
    try:
        dcp.save({"model": {"w": part}}, checkpoint_id="nowhere")
    except dcp.CheckpointException as said:
        return str(said).strip().splitlines()[-1]
    return ""


def scaled():
    """A gradient scaler, as it says of itself."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(1))
    return {"scaler": scaler.state_dict()}


def later(state, step):
    """The same after so many updates, by the optimizer's counters."""
    moments = state["optimizer"]["state"]
    counted = {name: {**each, "step": torch.full_like(each["step"], step)} for name, each in moments.items()}
    return {**state, "optimizer": {**state["optimizer"], "state": counted}}


def save_all(out: Path) -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    state = sharded(mesh)

    def save(name, what, *, step=2, **how):
        dcp.save(what, **({"checkpoint_id": out / name / f"step-{step}"} if "storage_writer" not in how else {}), **how)

    def writer(name, **how):
        return FileSystemWriter(out / name / "step-2", **how)

    generators = {"torch": torch.get_rng_state(), "python": random.getstate()}
    save("copies", sharded(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))))
    save("meshes", meshes())
    save("fsdp1", first_fsdp())
    save("files", state, storage_writer=writer("files", single_file_per_rank=False))
    save("threads", state, storage_writer=writer("threads", thread_count=3))
    save("lowest", state, planner=dcp.DefaultSavePlanner(dedup_save_to_lowest_rank=True))
    save("states", {**state, **scaled(), "rng_state": torch.get_rng_state()})
    save("generators", {**state, **scaled(), "rng": generators})
    for step in (2, 4):
        save("cached", {**state, "step": step}, step=step, planner=dcp.DefaultSavePlanner(enable_plan_caching=True))
        save("alone", {**later(state, step), "step": step}, step=step, use_collectives=False)
        dcp.async_save({**state, "step": step}, checkpoint_id=out / "overwritten" / "step-4").result()
    for ranks in ([0, 1], [2, 3]):
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            save(f"group-{ranks[0]}", sharded(DeviceMesh.from_group(group, "cpu")), process_group=group)
    said = refused()
    loaded = {
        name: loaded_from(out / name / "step-2", state) for name in ("files", "threads", "lowest", "copies", "alone")
    }
    if dist.get_rank() == 0:
        (out / "loaded.json").write_text(json.dumps({"loaded": loaded, "partial": said}))


def loaded_from(path, state):
    """What torch loads: the step, the updates, and the names and whole shapes of the model."""
    state = {**state, "step": 0}
    dcp.load(state, checkpoint_id=path)
    updates = {int(v["step"].item()) for v in state["optimizer"]["state"].values()}
    return {
        "step": state["step"],
        "updates": max(updates),
        "shapes": {n: list(t.shape) for n, t in state["model"].items()},
    }


def one(rank: int, out: Path) -> None:
    warnings.simplefilter("ignore")
    store = dist.FileStore(str(out / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    save_all(out)
    dist.barrier()
    os._exit(0)  # gloo's threads can abort the interpreter while it shuts down


def main() -> None:
    """Forked after torch was imported: that is what takes the time."""
    forks = [multiprocessing.get_context("fork").Process(target=one, args=(r, Path(sys.argv[1]))) for r in range(RANKS)]
    for fork in forks:
        fork.start()
    for fork in forks:
        fork.join()
    sys.exit(max(abs(fork.exitcode or 0) for fork in forks))


if __name__ == "__main__":
    main()

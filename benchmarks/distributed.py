"""A checkpoint of 512 ranks and 10,000 files with very many tensors, all of it sparse: how long and how much memory.

    python benchmarks/distributed.py [--kind dcp|deepspeed] [--tensors 1000000] [--directory DIR]

Of torch.distributed.checkpoint only `.metadata` is real; every `.distcp` file is as long as it should be and holds nothing. Of
DeepSpeed every file is by torch.save, without the bytes of its tensors: ZeRO-3, whose ranks each name all parameters, so
that 1,953 parameters make a million names; and files of experts to make up the number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES, RANKS, NBYTES = 10_000, 512, 4096
SHAPES = ((32, 32), (32,), (64, 16), (16, 8, 8))


def build_dcp(directory: Path, tensors: int) -> None:
    """As rank 0 writes it of what the others sent: names are objects of their own wherever they stand."""
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    paths = [f"__{file % RANKS}_{file // RANKS}.distcp" for file in range(FILES)]
    kinds, planner, places = {}, {}, {}
    for number in range(tensors):
        owner, file = f"layers.{number // 100}.weight_{number % 100}", number % FILES
        shape = torch.Size(SHAPES[number % len(SHAPES)])
        corner = (0,) * len(shape)
        chunk = ChunkStorageMetadata(torch.Size(corner), torch.Size(shape))
        kinds[f"model.{owner}"] = TensorStorageMetadata(TensorProperties(torch.bfloat16), shape, [chunk])
        planner[f"model.{owner}"] = ("model", "".join(owner))
        info = _StorageInfo(paths[file], number // FILES * NBYTES, NBYTES)
        places[MetadataIndex(f"model.{owner}", torch.Size(corner), 0)] = info
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".metadata").write_bytes(pickle.dumps(Metadata(kinds, planner, places), protocol=4))
    for file in range(min(FILES, tensors)):
        with (directory / paths[file]).open("wb") as out:
            out.write(b"PK\3\4")
            out.truncate((tensors - file + FILES - 1) // FILES * NBYTES)


def build_deepspeed(directory: Path, tensors: int) -> None:
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    (directory.parent / "latest").write_text(directory.name)
    shape, names = (
        torch.Size((1024, 1024)),
        [f"model.layers.{n // 10}.weight_{n % 10}" for n in range(tensors // RANKS)],
    )
    layers = -(-(FILES - 2 * RANKS) // EXPERTS)
    for rank in range(RANKS):
        start = f"zero_pp_rank_{rank}_mp_rank_00"
        # Each parameter is an empty tensor with a storage of its own, as stage 3 leaves it.
        module = {name: torch.empty(0, dtype=torch.bfloat16) for name in names}
        model = {
            **_MODEL,
            "module": module,
            "param_shapes": [dict.fromkeys(names, shape)],
            "num_experts": [EXPERTS] * layers,
        }
        flat = torch.empty(len(names) * shape.numel() // RANKS)
        moments = {"step": 1000, "exp_avg": torch.empty_like(flat), "exp_avg_sq": torch.empty_like(flat)}
        groups = [{"params": [0], "lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}]
        inside = {"state": {0: moments}, "param_groups": groups}
        own = {"zero_stage": 3, "partition_count": RANKS, "optimizer_state_dict": inside, "fp32_flat_groups": [flat]}
        with torch.serialization.skip_data():
            torch.save(model, directory / f"{start}_model_states.pt")
            torch.save({"optimizer_state_dict": own}, directory / f"bf16_{start}_optim_states.pt")
    for number in range(layers * EXPERTS):
        layer, expert = divmod(number, EXPERTS)
        name = f"model.layers.{layer}.mlp.deepspeed_moe.experts.deepspeed_experts.{expert}.weight"
        with torch.serialization.skip_data():
            path = directory / f"layer_{layer}_expert_{expert}_mp_rank_00_model_states.pt"
            torch.save({name: torch.empty(1024, 1024, dtype=torch.bfloat16)}, path)


EXPERTS = 64
_MODEL: dict[str, object] = {
    "buffer_names": [], "optimizer": None, "frozen_param_shapes": None, "shared_params": {}, "frozen_param_fragments": None,
    "lr_scheduler": {"last_batch_iteration": 999}, "skipped_steps": 0, "global_steps": 1000, "global_samples": 1000 * RANKS,
    "dp_world_size": RANKS, "mp_world_size": 1, "ds_version": "0.19.8",
    "ds_config": {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}, "bf16": {"enabled": True}},
}  # fmt: skip


def measure(directory: Path) -> tuple[float, float, float, str]:
    """Seconds, those of a processor, and peak megabytes of one whole process, and its last line."""
    argv = [sys.executable, "-m", "ckpt_rules", "verify", str(directory)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "1000"})
        _, _, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        said.seek(0)
        last = said.read().decode().strip().splitlines()[-1]
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["dcp", "deepspeed"], default="dcp")
    parser.add_argument("--tensors", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    build = {"dcp": build_dcp, "deepspeed": build_deepspeed}[given.kind]
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.directory or Path(scratch) / ("step-1" if given.kind == "dcp" else "global_step1000")
        if not directory.exists():
            # In a process of its own: a child starts with the peak memory of its parent.
            building = multiprocessing.get_context("spawn").Process(target=build, args=(directory, given.tensors))
            building.start()
            building.join()
        files = [entry for entry in directory.iterdir() if entry.suffix != ".distcp"]
        read = sum(entry.stat().st_blocks for entry in files) * 512 / 2**20
        seconds, processor, peak, said = measure(directory)
    print(
        f"{given.kind}: {given.tensors:,} tensors, {FILES:,} files, {RANKS} ranks, {read:.0f} MiB of headers: {seconds:.1f} s "
        f"({processor:.1f} s of processor time), {peak:.0f} MiB; {said}"
    )


if __name__ == "__main__":
    main()

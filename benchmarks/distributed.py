"""A distributed checkpoint of 512 ranks and 10,000 files with very many tensors, all of it sparse: how long and how much memory.

    python benchmarks/distributed.py [--tensors 1000000] [--directory DIR]

Only `.metadata` is real; every `.distcp` file is as long as it should be and holds nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES, RANKS, NBYTES = 10_000, 512, 4096
RULESET = "extends: [default]\nlimits: {memory: 8192, values: 100000000, opcodes: 2000000000, structure: 2047}\n"


def build(directory: Path, tensors: int) -> None:
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    size = torch.Size((32, 32))
    chunk = [ChunkStorageMetadata(torch.Size((0, 0)), size)]
    properties = TensorProperties(torch.float32)
    kinds, places = {}, {}
    for number in range(tensors):
        name = f"model.layers.{number // 100}.weight_{number % 100}"
        file = number % FILES
        kinds[name] = TensorStorageMetadata(properties, size, chunk)
        path = f"__{file % RANKS}_{file // RANKS}.distcp"
        places[MetadataIndex(name, torch.Size((0, 0)), 0)] = _StorageInfo(path, number // FILES * NBYTES, NBYTES)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".metadata").write_bytes(pickle.dumps(Metadata(kinds, {}, places), protocol=4))
    for file in range(min(FILES, tensors)):
        with (directory / f"__{file % RANKS}_{file // RANKS}.distcp").open("wb") as out:
            out.write(b"PK\3\4")
            out.truncate((tensors - file + FILES - 1) // FILES * NBYTES)


def measure(directory: Path, ruleset: Path) -> tuple[float, float, str]:
    """Seconds and peak megabytes of one whole process, and its last line."""
    started = time.perf_counter()
    argv = [sys.executable, "-m", "ckpt_rules", "verify", "--ruleset", str(ruleset), str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return seconds, peak, (done.stdout or done.stderr).strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tensors", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = given.directory or Path(scratch) / "step-1"
        if not (directory / ".metadata").exists():
            # In a process of its own: a child starts with the peak memory of its parent.
            building = multiprocessing.get_context("spawn").Process(target=build, args=(directory, given.tensors))
            building.start()
            building.join()
        ruleset = Path(scratch) / "large.yaml"
        ruleset.write_text(RULESET)
        size = os.path.getsize(directory / ".metadata") / 2**20
        seconds, peak, said = measure(directory, ruleset)
    print(
        f"{given.tensors:,} tensors, {FILES:,} files, {RANKS} ranks, .metadata {size:.0f} MiB: {seconds:.1f} s, {peak:.0f} MiB; {said}"
    )


if __name__ == "__main__":
    main()

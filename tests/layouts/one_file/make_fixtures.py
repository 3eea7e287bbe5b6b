"""Runs the trainers of this folder: `make fixtures` writes fixtures/ again; a name or more runs those alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TRAINERS = ("mmengine", "fvcore", "timm", "ultralytics", "fairseq")
SECONDS = 300


def main() -> None:
    """Each in a process of its own, on the CPU."""
    for trainer in sys.argv[1:] or TRAINERS:
        command = [sys.executable, "-W", "ignore", str(HERE / f"train_{trainer}.py")]
        subprocess.run(command, check=True, timeout=SECONDS, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


if __name__ == "__main__":
    main()

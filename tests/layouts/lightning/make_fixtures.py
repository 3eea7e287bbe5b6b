"""Keeps what Lightning's strategies for GPUs write, made on CPUs: `make fixtures` writes fixtures/ and fixtures/resumed.json.

The scripts that DeepSpeed copies into each directory are left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"
VARIANTS = ("fsdp", "zero2", "zero3")
SECONDS = 300


def main() -> None:
    """Make every variant, or those that are named."""
    seen_before = FIXTURES / "resumed.json"
    seen = json.loads(seen_before.read_text()) if seen_before.exists() else {}
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(HERE.parent),
    }
    for variant in [v for v in sys.argv[1:] if v in VARIANTS] or VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            command = [sys.executable, "-W", "ignore", str(HERE / "strategies.py"), work, variant]
            subprocess.run(command, env=environment, check=True, timeout=SECONDS)
            shutil.rmtree(FIXTURES / variant, ignore_errors=True)
            seen[variant] = json.loads((Path(work) / "resumed.json").read_text())
            for name in seen[variant]:
                source = Path(work) / "checkpoints" / name
                shutil.copytree(source, FIXTURES / variant / name, ignore=shutil.ignore_patterns("*.py"))
    seen_before.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

"""Trains with DeepSpeed on CPU ranks, saves and resumes: `make fixtures` writes fixtures/ and fixtures/resumed.json.

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

FIXTURES = Path(__file__).parent / "fixtures"
SECONDS = 180


def main() -> None:
    """Make every variant, or those that are named; each in a process group of its own."""
    from variants import VARIANTS

    seen_before = FIXTURES / "resumed.json"
    seen = json.loads(seen_before.read_text()) if seen_before.exists() else {}
    for name in sys.argv[1:] or VARIANTS:
        with tempfile.TemporaryDirectory() as work:
            launch(Path(work), name, "train", VARIANTS[name].ranks)
            if VARIANTS[name].then is not None:
                launch(Path(work), name, "again", VARIANTS[name].then)
            keep(Path(work) / "saves", FIXTURES / name)
            seen[name] = json.loads((Path(work) / "resumed.json").read_text())
    seen_before.write_text(json.dumps(seen, indent=1, sort_keys=True) + "\n")


def launch(work: Path, variant: str, what: str, ranks: int) -> None:
    """Run the trainer on some ranks. DeepSpeed builds no operators: the optimizers are torch's own."""
    group = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    trainer = Path(__file__).with_name("trainer.py")
    command = [sys.executable, *group, str(trainer), str(work), variant, what]
    subprocess.run(command, env=environment, check=True, timeout=SECONDS)


def keep(saves: Path, target: Path) -> None:
    """Copy a save directory without the conversion scripts."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(saves, target, ignore=shutil.ignore_patterns("*.py"))


if __name__ == "__main__":
    main()

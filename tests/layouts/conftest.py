"""Checkpoints that trainers' own libraries wrote: each made once for a whole run of the tests, whoever asks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.layouts.killing import Survey

SECONDS = 240


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`made("trainer/train.py", "ddp")`: the directory into which that script of this folder wrote.

    The script is run with the directory and the further arguments, in a process of its own, offline and on two threads.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(script: str, *args: str) -> Path:
        path = Path(__file__).parent / script
        name = hashlib.sha256("\0".join([script, *args]).encode()).hexdigest()[:12]
        out = shared / f"made-{name}"
        with FileLock(shared / f"made-{name}.lock"):
            if not (out / ".made").exists():
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                run_script(path, out, *args)
                (out / ".made").touch()
        return out

    return make


def run_script(script: Path, out: Path, *args: str) -> None:
    """Run one script with a directory to write into; all that it said is shown where it fails."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(out), *args],
        env={**os.environ, **offline, "PYTHONPATH": str(script.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script.name} {' '.join(args)} ended with {done.returncode}:\n{done.stdout[-6000:]}"


@pytest.fixture
def copied(made, tmp_path):
    """`copied("trainer/train.py", "plain", "checkpoint-4")`: a copy that a test may damage, with the same name."""

    def copy(script: str, *args: str) -> Path:
        *rest, inside = args
        source = made(script, *rest) / inside
        target = tmp_path / source.name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
        return target

    return copy


@pytest.fixture
def survived(record_property):
    """`survived(survey, HARMLESS)`: those damages and no others may live, each for its reason; shown when the tests are done."""

    def check(survey: Survey, reasons: dict[str, str]) -> None:
        assert set(survey.survivors) == set(reasons), survey
        total = len(survey.killed) + len(survey.survivors)
        record_property("kill rate", {"layout": survey.layout, "total": total, "survivors": reasons})

    return check

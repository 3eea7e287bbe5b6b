"""The example resumes exactly: an interrupted run and one that was not end with the same bits."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ckpt_rules import inspect, verify
from ckpt_rules.testing import CheckpointDir

EXAMPLES = Path(__file__).parents[2] / "examples"
STATE = "training_state.pth"


def load_example():
    spec = importlib.util.spec_from_file_location("train_and_resume", EXAMPLES / "train_and_resume.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def train(run: Path, *flags: str) -> str:
    """What the example prints, in this process but with the generators left in a state that no run would have."""
    random.seed(987)
    torch.manual_seed(987)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        load_example().main(["--out", str(run), "--epochs", "3", *flags])
    return said.getvalue()


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run of 3 epochs of 40 batches that nothing interrupted."""
    run = tmp_path_factory.mktemp("straight")
    train(run)
    return run


@pytest.fixture
def interrupted(tmp_path) -> Path:
    """A run that was stopped in its second epoch, after 55 batches."""
    train(tmp_path / "run", "--stop-after", "55")
    return tmp_path / "run"


def test_every_save_passes_strictly(straight):
    for save in straight.glob("step-*"):
        report = verify(save, strict=True)
        assert [f.message for f in report.findings if f.severity != "info"] == []
        assert report.passed


@pytest.mark.parametrize(
    "stops", [(40,), (55,), (1, 60, 30)], ids=["at an epoch's end", "within an epoch", "three times"]
)
def test_a_resumed_run_ends_with_the_same_bits_and_has_trained_the_same_batches(straight, tmp_path, stops):
    for batches in stops:
        train(tmp_path, "--stop-after", str(batches))
    train(tmp_path)
    assert log(tmp_path) == log(straight)
    ours, theirs = (load_file(run / "step-120" / "model.safetensors") for run in (tmp_path, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    states = [torch.load(run / "step-120" / STATE, weights_only=True) for run in (tmp_path, straight)]
    moments = [s["optimizer_state_dict"]["state"] for s in states]
    assert all(torch.equal(moments[0][i][k], moments[1][i][k]) for i in moments[1] for k in moments[1][i])
    assert states[0]["scheduler_state_dict"] == states[1]["scheduler_state_dict"]


def test_it_does_what_inspect_says_it_will_do(interrupted):
    plan = inspect(interrupted / "step-55").resume
    assert plan.sentence == "epoch 2 continues: batches 0 to 14 are skipped, 15 to 39 are trained"
    said = train(interrupted, "--stop-after", "1")
    assert f"resuming from {interrupted}/step-55: {plan.sentence}" in said
    assert "stand at update 55" in said
    assert (log(interrupted)[-1]["epoch"], log(interrupted)[-1]["batch"]) == (2, 15)


def test_a_damaged_save_is_passed_over(interrupted):
    train(interrupted, "--stop-after", "10")
    CheckpointDir(interrupted / "step-65").truncate("model.safetensors", keep=0.5)
    said = train(interrupted, "--stop-after", "1")
    assert "skipping" in said
    assert "weights/broken-safetensors" in said
    assert f"resuming from {interrupted}/step-60" in said or f"resuming from {interrupted}/step-55" in said


def test_nothing_is_overwritten_where_every_save_is_damaged(interrupted):
    for save in interrupted.glob("step-*"):
        CheckpointDir(save).truncate(STATE, keep=0.5)
    with pytest.raises(SystemExit, match=r"none of the 1 saves in .* can be resumed"):
        train(interrupted)
    assert [p.name for p in interrupted.glob("step-*")] == ["step-55"]


def test_a_run_of_another_shape_is_not_resumed(interrupted):
    with pytest.raises(SystemExit, match=r"was trained with .*'batches_per_epoch': 40.* as .*'batches_per_epoch': 50"):
        train(interrupted, "--batches", "50")


def test_an_optimizer_that_is_not_where_the_counters_say_is_refused(interrupted):
    """Within the tolerance of the quick ruleset, but not of a loop that promises the same bits."""
    one_more = torch.tensor(56.0)
    CheckpointDir(interrupted / "step-55").set_key(STATE, "optimizer_state_dict.state.0.step", one_more)
    with pytest.raises(SystemExit, match=r"the optimizer has made \[55, 56\] updates"):
        train(interrupted)


def test_a_small_learning_rate_is_said(interrupted, tmp_path):
    train(tmp_path / "late", "--stop-after", "119")
    assert "warning: that is less than 1%" in train(tmp_path / "late")


@pytest.mark.slow
def test_ctrl_c_saves_before_it_stops(tmp_path):
    argv = [sys.executable, EXAMPLES / "train_and_resume.py", "--out", tmp_path, "--epochs", "500"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "step-60").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "interrupted: saved" in said or "; saved" in said
    newest = max(tmp_path.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))
    assert verify(newest, strict=True).passed

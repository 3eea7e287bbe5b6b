"""Links among the saves of a run that lead nowhere: a trainer that follows one stops."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from ckpt_rules import verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in
from ckpt_rules.testing import build_plain_torch

IN_A_CIRCLE, NOWHERE = "can't be followed: too many levels of symbolic links", "is not there"


@pytest.fixture
def files(tmp_path):
    """A run of files, each a save with its own optimizer."""
    for epoch in (1, 2):
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "global_step": 1}
        torch.save(state, tmp_path / f"epoch={epoch}.ckpt")
    return tmp_path


def saves(run):
    return [os.path.basename(save) for found in runs_in(str(run), installed_plugins()).values() for save in found]


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("last.ckpt", "last.ckpt", IN_A_CIRCLE),
        ("last.ckpt", "run/epoch=2.ckpt", NOWHERE),
        ("epoch=3.ckpt", "/gone/epoch=3.ckpt", NOWHERE),
    ],
)
def test_a_file(files, run, name, target, words):
    assert run("verify", files).code == 0
    (files / name).symlink_to(target)
    assert saves(files) == ["epoch=1.ckpt", "epoch=2.ckpt", name]
    ended = run("verify", files, "--format", "json")
    assert ended.code == 1
    reports = json.loads(ended.out)["reports"]
    assert [r["verdict"] for r in reports] == ["passed", "passed", "failed"]
    (found,) = [f for o in reports[-1]["outcomes"] for f in o["findings"]]
    assert (found["rule"], found["severity"]) == ("files/missing-checkpoint", "error")
    assert found["message"] == f"'{files / name}' is a link to '{target}', which {words}"
    assert found["data"] == {"link": target}
    assert run("latest", files).out == f"{files}/epoch=2.ckpt\n"


def test_two_links_that_lead_to_each_other(files):
    (files / "last.ckpt").symlink_to("last-v1.ckpt")
    (files / "last-v1.ckpt").symlink_to("last.ckpt")
    assert sorted(saves(files))[2:] == ["last-v1.ckpt", "last.ckpt"]
    for name in ("last.ckpt", "last-v1.ckpt"):
        assert IN_A_CIRCLE in verify(files / name).findings[0].message


def test_links_that_lead_to_a_save_are_left_out(files, run):
    (files / "last.ckpt").symlink_to("epoch=2.ckpt")
    assert saves(files) == ["epoch=1.ckpt", "epoch=2.ckpt"]
    assert run("verify", files).code == 0


@pytest.mark.parametrize("name", ["latest", "last", "step-30"])
def test_a_directory(tmp_path, run, name):
    saved = build_plain_torch(tmp_path / "saved" / "ck", with_torch=False).path
    runs = tmp_path / "run"
    for step in (10, 20):
        shutil.copytree(saved, runs / f"step-{step}")
    (runs / name).symlink_to("step-40")
    assert saves(runs) == ["step-10", "step-20", name]
    assert run("verify", runs).code == 1
    assert run("latest", runs).out == f"{runs}/step-20\n"
    (runs / name).unlink()
    (runs / name).symlink_to("step-20")
    assert run("verify", runs).code == 0


@pytest.mark.parametrize("name", ["notes", "best", "tensorboard.txt"])
def test_other_links_that_lead_nowhere_are_no_saves(files, name):
    (files / name).symlink_to("nowhere")
    assert saves(files) == ["epoch=1.ckpt", "epoch=2.ckpt"]

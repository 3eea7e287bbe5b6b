"""Help of files/missing-required and files/commit-marker: files that may be the missing one, under nearly its name."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import verify


@pytest.fixture
def save(tmp_path):
    """What the transformers Trainer writes, as far as its files go."""
    folder = tmp_path / "checkpoint-20"
    folder.mkdir()
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1, "max_steps": 4, "epoch": 1.0}))
    return folder


def missing(folder):
    return [f for f in verify(folder).findings if f.rule in ("files/missing-required", "files/commit-marker")]


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt.tmp", "optimizer (1).pt", "Optimizer.pt", "optimizer.pt.part", "optimizer.pt.bak", "optimizer copy.pt",
        "optimizer - Copy.pt", "optimizer.pth", "optimzer.pt", "optimizer.pt~", ".optimizer.pt.a1b2c3",
        "tmp_optimizer.pt", "optimizer.pt.crdownload",
    ],
)  # fmt: skip
def test_nearly_the_name(save, name):
    (save / "optimizer.pt").rename(save / name)
    (found,) = missing(save)
    assert found.place.path == "optimizer.pt"
    assert found.help.startswith(f"{name} may be that file: rename it to optimizer.pt if it is complete; otherwise ")
    assert found.data["near"] == name


@pytest.mark.parametrize("name", ["optim_state.bin", "optimizer.json", "optimizer_0.pt", "scheduler2.pt", "notes.pt"])
def test_other_names(save, name):
    (save / "optimizer.pt").rename(save / name)
    (found,) = missing(save)
    assert "may be that file" not in found.help
    assert "near" not in found.data


def test_nothing_of_the_kind(save):
    (save / "optimizer.pt").unlink()
    (save / "optimizer.pt.tmp").touch()  # empty: nothing is in it
    (found,) = missing(save)
    assert found.help == "copy it from where the save was written, or resume from an earlier save"


def test_what_commits_a_save(save):
    (save / "trainer_state.json").rename(save / "trainer_state.json.tmp")
    (found,) = missing(save)
    assert (found.rule, found.place.path) == ("files/commit-marker", "trainer_state.json")
    assert found.help.startswith(
        "trainer_state.json.tmp may be that file: rename it to trainer_state.json if it is complete; otherwise "
    )


def test_a_file_that_is_needed_itself_is_not_taken_for_another(save):
    (save / "scheduler.pt").unlink()
    (found,) = missing(save)
    assert found.place.path == "scheduler.pt"
    assert "may be that file" not in found.help

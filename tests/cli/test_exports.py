"""Exported weights among the saves of a run: no save that failed, and none to resume from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in

ZERO2 = Path(__file__).parents[1] / "layouts" / "deepspeed" / "fixtures" / "zero2"
WEIGHTS = {
    "layers.0.weight": torch.ones(4, 4, dtype=torch.float16),
    "layers.1.weight": torch.ones(4, 4, dtype=torch.float16),
}


def save_16bit(folder):
    """What DeepSpeed's `save_16bit_model` writes."""
    torch.save(WEIGHTS, folder / "pytorch_model.bin")


def save_safetensors(folder):
    save_file(WEIGHTS, folder / "model.safetensors", metadata={"format": "pt"})


def save_pretrained(folder):
    save_safetensors(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"], "model_type": "x"}))
    (folder / "tokenizer_config.json").write_text("{}")


def save_adapter(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["q"]}))
    tensors = {f"base_model.model.q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    save_file(tensors, folder / "adapter_model.safetensors")


EXPORTS = (save_16bit, save_safetensors, save_pretrained, save_adapter)


@pytest.fixture
def zero_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for save in ("global_step4", "global_step8"):
        shutil.copytree(ZERO2 / "global_step4", run / save)
    (run / "latest").write_text("global_step8")
    return run


def names(run):
    return [Path(save).name for saves in runs_in(str(run), installed_plugins()).values() for save in saves]


@pytest.mark.parametrize("write", EXPORTS)
@pytest.mark.parametrize(
    "name", ["global_step8_hf", "global_step8-16bit", "global_step12", "step_8", "checkpoint-8", "epoch_1"]
)
def test_an_export_beside_the_saves_of_deepspeed_is_none(zero_run, run, write, name):
    (zero_run / name).mkdir()
    write(zero_run / name)
    assert names(zero_run) == ["global_step4", "global_step8"]
    assert run("latest", zero_run).out == f"{zero_run}/global_step8\n"
    assert run("verify", zero_run, "--select", "files/*").code == 0


@pytest.mark.parametrize("write", EXPORTS)
@pytest.mark.parametrize("name", ["final", "merged", "."])
def test_an_export_of_another_name_never_was(zero_run, write, name):
    (zero_run / name).mkdir(exist_ok=True)
    write(zero_run / name)
    assert names(zero_run) == ["global_step4", "global_step8"]


def test_a_directory_of_exports_beside_the_run(zero_run, run):
    for step in (4, 8):
        (zero_run.parent / "hf" / f"step_{step}").mkdir(parents=True)
        save_pretrained(zero_run.parent / "hf" / f"step_{step}")
    assert list(runs_in(str(zero_run.parent), installed_plugins())) == [str(zero_run)]
    assert run("latest", zero_run.parent).out == f"{zero_run}/global_step8\n"
    assert names(zero_run.parent / "hf") == ["step_4", "step_8"]


def trainer(run, *steps):
    """Saves with the names of the transformers Trainer's."""
    for step in steps:
        folder = run / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_pretrained(folder)
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 40, "epoch": 1.0}))
        torch.save({"state": {}, "param_groups": [{"params": [0], "lr": 1e-3}]}, folder / "optimizer.pt")
    return run


def test_a_save_that_lost_its_state_is_no_export(tmp_path, run):
    """The Trainer would take it: the newest by its name."""
    runs = trainer(tmp_path / "run", 10, 20)
    (runs / "checkpoint-20" / "trainer_state.json").unlink()
    (runs / "checkpoint-20" / "optimizer.pt").unlink()
    assert names(runs) == ["checkpoint-10", "checkpoint-20"]
    assert run("verify", runs).code == 1


def test_a_merged_model_beside_the_saves_of_the_trainer(tmp_path):
    runs = trainer(tmp_path / "run", 10, 20)
    (runs / "checkpoint-20-merged").mkdir()
    save_pretrained(runs / "checkpoint-20-merged")
    assert names(runs) == ["checkpoint-10", "checkpoint-20"]


def whole(path, epoch):
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


def test_files_of_weights_beside_files_that_are_saves(tmp_path):
    for epoch in (1, 2):
        whole(tmp_path / f"checkpoint_{epoch}.pt", epoch)
    torch.save(WEIGHTS, tmp_path / "model_2.pt")
    torch.save(WEIGHTS, tmp_path / "last.pt")
    assert names(tmp_path) == ["checkpoint_1.pt", "checkpoint_2.pt", "last.pt"]  # the trainer takes last.pt


def test_a_directory_of_weights_beside_files_that_are_saves(tmp_path):
    for epoch in (1, 2):
        whole(tmp_path / f"checkpoint_{epoch}.pt", epoch)
    (tmp_path / "epoch_2").mkdir()
    save_pretrained(tmp_path / "epoch_2")
    assert names(tmp_path) == ["checkpoint_1.pt", "checkpoint_2.pt"]


def test_a_run_of_nothing_but_exports_is_judged(tmp_path, run):
    for step in (1, 2):
        (tmp_path / f"step_{step}").mkdir()
        save_pretrained(tmp_path / f"step_{step}")
    assert names(tmp_path) == ["step_1", "step_2"]
    assert run("verify", tmp_path).code == 1

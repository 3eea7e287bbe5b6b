"""Runs of each layout: where their saves are found, and which one is taken while the newest is being written."""

from __future__ import annotations

import shutil

import pytest

from ckpt_rules import inspect, newest_checkpoint
from tests.layouts.samples import sample_of

# The directories of a run down to its saves, an older save and a newer one.
RUNS = {
    "trainer": ("run", "checkpoint-8", "checkpoint-16"),
    "trainer lora": ("", "checkpoint-8", "checkpoint-16"),
    "accelerate": ("project/checkpoints", "checkpoint_0", "checkpoint_1"),
    "diffusers": ("run", "checkpoint-3", "checkpoint-6"),
    "dcp": ("outputs/checkpoint", "step-2", "step-4"),
    "zero2": ("", "global_step4", "global_step8"),
    "zero3": ("save", "global_step4", "global_step8"),
    "orbax": ("run", "2", "10"),
    "megatron": ("", "iter_0000100", "iter_0000200"),
}
_MOST = 8


@pytest.mark.parametrize("name", RUNS)
def test_the_newest_is_being_written(name, made, tmp_path):
    """It holds one file by now, whichever is written first."""
    above, older, newer = RUNS[name]
    source = sample_of(name, made, tmp_path)
    folder = tmp_path / "top" / above
    shutil.copytree(source, folder / older)
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    for file in files[:_MOST]:
        (folder / newer / file).parent.mkdir(parents=True)
        shutil.copy2(source / file, folder / newer / file)
        assert newest_checkpoint(tmp_path / "top") == str(folder / older), file
        shutil.rmtree(folder / newer)
    assert newest_checkpoint(tmp_path / "top") == str(folder / older)


@pytest.mark.parametrize("above", ["lightning_logs/version_0/checkpoints", "checkpoints"])
def test_a_run_of_lightning_whose_last_is_a_link(made, tmp_path, above):
    folder = tmp_path / "top" / above
    source = sample_of("lightning", made, tmp_path).parent
    shutil.copytree(source, folder)
    newest = max(p.name for p in folder.glob("epoch=*.ckpt"))
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").symlink_to(newest)
    found = newest_checkpoint(tmp_path / "top")
    assert found is not None
    assert found.endswith(".ckpt")
    assert not found.endswith("last.ckpt")


@pytest.mark.parametrize(
    ("name", "file"), [("ultralytics", "last.pt"), ("nanogpt", "ckpt.pt"), ("timm", "last.pth.tar")]
)
def test_trainers_that_are_told_a_file(made, tmp_path, name, file):
    folder = tmp_path / "train" / "weights"
    shutil.copytree(sample_of(name, made, tmp_path).parent, folder)
    assert newest_checkpoint(folder) == str(folder / file)


@pytest.mark.parametrize(
    ("name", "final", "layout"),
    [("trainer lora", "adapter", "peft-adapter"), ("diffusers", "pipeline", "diffusers-pipeline")],
)
def test_what_was_saved_at_the_end_lies_beside_the_checkpoints(made, tmp_path, name, final, layout):
    run = tmp_path / "output"
    source = sample_of(name, made, tmp_path)
    shutil.copytree(sample_of(final, made, tmp_path), run)
    assert newest_checkpoint(run) is None
    shutil.copytree(source, run / source.name)
    assert newest_checkpoint(run) == str(run / source.name)
    assert inspect(run).layout.name == layout

"""files/directory-in-place: a directory where a loader opens a file."""

from __future__ import annotations

import os

import pytest

from ckpt_rules import Severity
from ckpt_rules_files.directories import DirectoryInPlace


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.bin", "scheduler.bin", "optimizer.pt", "rng_state_0.pth", "random_states_0.pkl", "model.safetensors",
        "__0_0.distcp", ".metadata", "latest", "config.json", "trainer_state.json", "training_args.bin", "mine.pt",
        "model-00001-of-00002.safetensors", "optimizer_1.bin", "mp_rank_00_model_states.pt",
    ],
)  # fmt: skip
def test_a_directory_in_place_of_a_file(make_checkpoint, run_rule, name):
    ck = make_checkpoint()
    (ck / name).unlink(missing_ok=True)
    os.mkdir(ck / name)
    found = run_rule(DirectoryInPlace(), ck).assert_one(
        path=name, message=f"{name} is an empty directory, but should be a file"
    )
    assert found.severity is Severity.ERROR


@pytest.mark.parametrize(
    "name", ["optimizer_0", "pytorch_model_fsdp_0", "global_step10", "last.ckpt", "mine.pt", "weights"]
)
def test_directories_of_trainers(make_checkpoint, run_rule, name):
    ck = make_checkpoint()
    os.mkdir(ck / name)
    (ck / name / "x").write_bytes(b"1")
    run_rule(DirectoryInPlace(), ck).assert_passed()


def test_what_zero_to_fp32_writes_is_a_warning(make_checkpoint, run_rule):
    ck = make_checkpoint()
    os.mkdir(ck / "pytorch_model.bin")
    (ck / "pytorch_model.bin" / "pytorch_model.bin").write_bytes(b"1")
    found = run_rule(DirectoryInPlace(), ck).assert_one(path="pytorch_model.bin")
    assert found.severity is Severity.WARNING

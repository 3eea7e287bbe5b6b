"""`ckpt-rules seal` as a user sees it: what is written, when, and what is refused."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

import pytest
import torch
from blake3 import blake3

from ckpt_rules import UsageError, seal, verify

SEAL = "ckpt-rules.seal.json"


def test_it_writes_size_and_digest_of_every_file(make_checkpoint, run):
    checkpoint = make_checkpoint(epoch=2)
    ended = run("seal", checkpoint.path)
    assert ended.code == 0
    assert ended.out.startswith("sealed 3 files, ")
    written = json.loads((checkpoint / SEAL).read_text())
    data = (checkpoint / "model.safetensors").read_bytes()
    assert written["files"]["model.safetensors"] == {"size": len(data), "digest": blake3(data).hexdigest()}
    assert sorted(written["files"]) == ["config.json", "model.safetensors", "training_state.pth"]
    assert (written["version"], written["layout"], written["algorithm"]) == (1, "plain-torch", "blake3")
    assert (written["progress"]["epoch"], written["progress"]["updates"]) == (2, 20)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(written["created"])).total_seconds()) < 60


@pytest.mark.parametrize("ruleset", ["quick", "default", "ci", "deep"])
def test_a_sealed_checkpoint_passes_as_it_did(make_checkpoint, run, ruleset):
    checkpoint = make_checkpoint(epoch=2)
    run("seal", checkpoint.path, "--quiet")
    assert run("verify", checkpoint.path, "--ruleset", ruleset, "--strict", "--quiet").code == 0


def test_a_seal_is_no_reason_against_publishing(make_checkpoint):
    checkpoint = make_checkpoint(epoch=2)
    before = verify(checkpoint, ruleset="publish")
    seal(checkpoint)
    assert [f.rule for f in before.findings] == ["publish/training-state", "publish/no-tokenizer"]
    assert verify(checkpoint, ruleset="publish").findings == before.findings


def test_what_git_and_the_hub_keep_is_not_sealed(make_checkpoint, run):
    checkpoint = make_checkpoint()
    for path in (".git/HEAD", ".gitattributes", ".cache/huggingface/download/config.json.metadata"):
        (checkpoint / path).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / path).write_text("x")
    run("seal", checkpoint.path)
    assert sorted(json.loads((checkpoint / SEAL).read_text())["files"]) == [
        "config.json",
        "model.safetensors",
        "training_state.pth",
    ]


def test_quiet_prints_nothing(make_checkpoint, run):
    ended = run("seal", make_checkpoint().path, "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_seal_is_not_replaced_unless_asked(make_checkpoint, run):
    checkpoint = make_checkpoint()
    run("seal", checkpoint.path)
    before = (checkpoint / SEAL).read_bytes()
    checkpoint.append("config.json", b" ")
    ended = run("seal", checkpoint.path)
    assert ended.code == 2
    assert "has a seal already" in ended.err
    assert (checkpoint / SEAL).read_bytes() == before
    assert run("seal", checkpoint.path, "--force", "--algorithm", "sha256").code == 0
    assert run("verify", checkpoint.path, "--select", "integrity/digest").code == 0


@pytest.mark.parametrize(
    ("path", "why"),
    [("nowhere", "there is nothing"), ("file", "it is not a directory"), ("empty", "there is no file in it")],
)
def test_what_can_not_be_sealed_says_why(tmp_path, run, path, why):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    ended = run("seal", tmp_path / path)
    assert (ended.code, ended.out) == (2, "")
    assert f"can't be sealed: {why}" in ended.err


def test_a_broken_link_is_named_and_nothing_is_written(make_checkpoint, run):
    checkpoint = make_checkpoint()
    (checkpoint / "lost.bin").symlink_to("nowhere.bin")
    ended = run("seal", checkpoint.path)
    assert ended.code == 2
    assert "lost.bin is not a file that can be read (broken link)" in ended.err
    assert not (checkpoint / SEAL).exists()


def test_a_run_is_refused_with_the_name_of_a_checkpoint(make_checkpoint, run, tmp_path):
    checkpoint = make_checkpoint()
    for number in (1, 2):
        checkpoint.copy(tmp_path / "run" / f"step-{number}")
    ended = run("seal", tmp_path / "run")
    assert ended.code == 2
    assert "is a run of 2 checkpoints; seal one of them, such as" in ended.err


def test_a_run_of_files_is_refused(run, tmp_path):
    saved = {"pytorch-lightning_version": "2.5.0", "epoch": 1, "global_step": 20, "state_dict": {"w": torch.zeros(2)}}
    for name in ("epoch=1-step=20.ckpt", "last.ckpt"):
        torch.save(saved | {"loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}, tmp_path / name)
    ended = run("seal", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert "is a run of 2 checkpoints; they are files, and a seal lies in a directory" in ended.err
    assert not (tmp_path / SEAL).exists()


def test_a_file_that_changes_meanwhile_is_not_sealed(make_checkpoint):
    checkpoint = make_checkpoint()

    def touch(read, total):
        os.utime(checkpoint / "config.json", (1, 1))

    with pytest.raises(UsageError, match=r"config\.json changed while it was read"):
        seal(checkpoint, progress=touch)
    assert not (checkpoint / SEAL).exists()


def test_an_unknown_algorithm_is_refused(make_checkpoint):
    with pytest.raises(UsageError, match="there is no algorithm 'md5' for a seal; there are blake3 and sha256"):
        seal(make_checkpoint(), algorithm="md5")

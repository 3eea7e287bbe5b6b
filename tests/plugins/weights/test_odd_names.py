"""Saves under names that promise no format are known by their content; an empty or a cut one is blamed for what it is."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import verify


def trained(steps=3):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 16)).pow(2).mean().backward()
        optimizer.step()
    return {"iteration": steps, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def told(path, ruleset="default"):
    report = verify(str(path), ruleset=ruleset)
    assert not [o.rule for o in report.outcomes if o.status == "crashed"]
    return report.verdict, [f"{f.rule} @ {f.place}: {f.message}" for f in report.findings if f.severity == "error"]


@pytest.fixture
def save(tmp_path):
    """A whole save under a name of one's own, alone in a directory."""

    def make(name="checkpoint_20", legacy=False):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        torch.save(trained(), folder / name, _use_new_zipfile_serialization=not legacy)
        return folder / name

    return make


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["checkpoint_20", "model.isc", "state.chkpt"])
def test_a_whole_save_is_read_whatever_its_name(save, name, legacy):
    path = save(name, legacy)
    assert told(path.parent) == told(path) == ("passed", [])
    assert verify(str(path.parent)).layout.name == "plain-torch"


def test_a_cut_one_is_damaged_and_not_missing(save):
    path = save()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    expected = (
        f"weights/broken-torch-file @ checkpoint_20, byte {len(data) // 2}: the zip directory that belongs at the end of the "
        f"file is missing: the file was cut short, at {len(data) // 2:,} bytes"
    )
    assert told(path.parent) == told(path) == ("failed", [expected])


@pytest.mark.parametrize("name", ["checkpoint_hello.py", "checkpoint.isc", "checkpoint_20", "model.pdparams"])
def test_an_empty_one_is_empty_and_not_missing(tmp_path, name):
    (tmp_path / name).touch()
    expected = ("failed", [f"files/empty @ {name}: the file is empty: 0 bytes"])
    assert told(tmp_path) == told(tmp_path / name) == expected


def test_a_stand_in_is_no_missing_save(tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (tmp_path / "checkpoint_20").write_text(pointer)
    words = "the file is a git-LFS pointer to 12,345 bytes, 130 bytes long, not what its name says"
    assert (
        told(tmp_path)
        == told(tmp_path / "checkpoint_20")
        == ("failed", [f"files/placeholder @ checkpoint_20: {words}"])
    )


def test_an_empty_one_beside_a_whole_one_of_the_same_family(save):
    path = save()
    (path.parent / "checkpoint_30").touch()
    (path.parent / "README").touch()
    assert told(path.parent)[1] == ["files/empty @ checkpoint_30: the file is empty: 0 bytes"]


@pytest.mark.parametrize("name", ["checkpoint_done", "model.lock", "_SUCCESS", "checkpoint.log", "model.py"])
def test_markers_and_code_beside_weights_may_be_empty(save, name):
    path = save()
    (path.parent / name).touch()
    assert told(path.parent) == ("passed", [])


@pytest.mark.parametrize("name", ["checkpoint_20.bak", "checkpoint_20.tmp", "shards.distcp"])
def test_what_was_put_aside_is_not_looked_into(save, name):
    path = save()
    (path.parent / name).write_bytes(path.read_bytes()[:5000])
    assert told(path.parent)[1] == []


def test_weights_without_a_suffix_are_loaded(tmp_path):
    torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / "model_final")
    assert told(tmp_path, "inference") == ("passed", [])
    (tmp_path / "model_final").unlink()
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "weights")
    assert told(tmp_path, "inference") == ("passed", [])
    with (tmp_path / "weights").open("ab") as file:
        file.truncate(80)
    assert "weights/broken-safetensors @ weights, byte 80" in told(tmp_path)[1][0]


def test_weights_in_the_format_of_mistral(tmp_path):
    save_file({"tok_embeddings.weight": torch.ones(2, 2)}, tmp_path / "consolidated.safetensors")
    (tmp_path / "params.json").write_text('{"dim": 2}')
    assert told(tmp_path, "inference") == ("passed", [])


def test_formats_of_other_libraries_are_not_missing_weights(tmp_path):
    files = {
        "flax": {"checkpoint_100": b"\x83\xa5model" + os.urandom(3000)},
        "tensorflow": {
            "checkpoint": b'model_checkpoint_path: "model.ckpt-100"\n',
            "model.ckpt-100.data-00000-of-00001": os.urandom(3000),
        },
        "paddle": {"model.pdparams": pickle.dumps({"linear.w": [1.0]}, 2), "model.pdopt": pickle.dumps({"lr": 1.0}, 2)},
    }
    for library, content in files.items():
        (tmp_path / library).mkdir()
        for name, data in content.items():
            (tmp_path / library / name).write_bytes(data)
        assert told(tmp_path / library) == ("unknown", [])


def test_text_and_pictures_are_no_weights(tmp_path):
    (tmp_path / "README").write_text("a run")
    (tmp_path / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(500))
    (tmp_path / "events.out.tfevents.1").write_bytes(os.urandom(500))
    assert told(tmp_path)[1] == [
        "weights/missing @ .: there are no model weights: no safetensors file and no torch file that contains a model"
    ]

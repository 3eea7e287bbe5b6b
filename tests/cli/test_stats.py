"""`ckpt-rules stats` as a user sees it: the values of every tensor, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import math

import pytest
import torch
from safetensors.torch import save_file

from ckpt_rules import stats


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "ck"
    folder.mkdir()
    save_file(
        {
            "a.weight": torch.tensor([[1.0, -3.0], [0.0, 4.0]]),
            "b.weight": torch.tensor([1.0, math.nan, math.inf]),
            "c.bias": torch.zeros(5, dtype=torch.bfloat16),
            "empty": torch.zeros(0, 3),
        },
        folder / "model.safetensors",
    )
    return folder


def rows(text):
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_the_table_has_a_line_for_each_tensor(saved, run):
    ended = run("stats", saved)
    assert ended.code == 0
    table = rows(ended.out)
    assert table["a.weight"] == ["a.weight", "float32", "2x2", "-3", "4", "0.5", "5.099", "25.0", "%"]
    assert "1 first at" not in ended.out
    assert table["b.weight"][-5:] == ["%", "2", "first", "at", "[1]"]
    assert table["c.bias"] == ["c.bias", "bfloat16", "5", "0", "0", "0", "0", "100.0", "%"]
    assert "it has no elements" in ended.out
    assert "4 tensors, 12 elements" in ended.out
    assert ended.out.endswith("; 1 tensor holds values that are not finite\n")


def test_json_has_every_number(saved, run):
    found = run("stats", saved, "--format", "json").json
    tensor = next(t for t in found["tensors"] if t["tensor"] == "a.weight")
    assert tensor == {
        "path": "model.safetensors",
        "tensor": "a.weight",
        "dtype": "float32",
        "shape": [2, 2],
        "numel": 4,
        "nan": 0,
        "inf": 0,
        "first": None,
        "smallest": -3,
        "largest": 4,
        "mean": 0.5,
        "peak": 4,
        "norm": pytest.approx(math.sqrt(26)),
        "zeros": 0.25,
        "constant": False,
        "unread": None,
    }


def test_csv_has_a_record_for_each_tensor(saved, run):
    records = {r["tensor"]: r for r in csv.DictReader(io.StringIO(run("stats", saved, "--format", "csv").out))}
    assert records["b.weight"]["first"] == "1"
    assert (records["b.weight"]["nan"], records["b.weight"]["inf"]) == ("1", "1")
    assert records["a.weight"]["shape"] == "2x2"
    assert records["empty"]["unread"] == "it has no elements"


@pytest.mark.parametrize(
    ("key", "first"), [("norm", "a.weight"), ("zeros", "c.bias"), ("nonfinite", "b.weight"), ("name", "a.weight")]
)
def test_sorting_puts_the_largest_first(saved, run, key, first):
    found = run("stats", saved, "--sort", key, "--top", "1", "--format", "json").json
    assert [t["tensor"] for t in found["tensors"]] == [first]


def test_an_unknown_key_is_named_with_the_nearest(saved, run):
    ended = run("stats", saved, "--sort", "norn")
    assert ended.code == 2
    assert "tensors can't be sorted by 'norn' (did you mean 'norm'?)" in ended.err


def test_tensors_that_were_not_asked_for_are_not_read(saved, run):
    found = run("stats", saved, "--tensor", "a.*", "--format", "json").json
    assert [t["tensor"] for t in found["tensors"]] == ["a.weight"]
    assert found["nbytes"] == 16


def test_no_match_says_what_there_is(saved, run):
    ended = run("stats", saved, "--tensor", "z*")
    assert (ended.code, ended.out) == (2, "")
    assert "none of the 4 tensors matches 'z*'; the first is" in ended.err


def test_one_file_of_weights_will_do(tmp_path, run):
    torch.save({"w": torch.ones(3)}, tmp_path / "weights.pt")
    assert rows(run("stats", tmp_path / "weights.pt").out)["w"][:5] == ["w", "float32", "3", "1", "1"]


@pytest.mark.parametrize(
    ("path", "why"), [("nowhere", "there is nothing"), ("/dev/null", "it is not a file or directory")]
)
def test_a_path_without_a_checkpoint_is_a_usage_error(tmp_path, run, path, why):
    ended = run("stats", tmp_path / path)
    assert ended.code == 2
    assert f"can't be looked into: {why}" in ended.err


def test_a_directory_without_tensors_is_one_too(tmp_path, run):
    ended = run("stats", tmp_path)
    assert ended.code == 2
    assert "holds no tensor that can be read" in ended.err


def test_names_that_would_move_the_cursor_are_escaped(tmp_path, run):
    save_file({"\x1b[2Jw": torch.ones(2)}, tmp_path / "model.safetensors")
    for form in ("text", "csv", "json"):
        assert "\x1b" not in run("stats", tmp_path, "--format", form).out


def test_the_same_comes_from_python(saved):
    found = stats(saved, tensor="*.weight").sorted("peak")
    assert [(t.tensor, t.peak, t.non_finite) for t in found.tensors] == [("a.weight", 4, 0), ("b.weight", 1, 2)]


def test_what_could_not_be_read_is_told_and_ends_with_2(make_checkpoint, run):
    checkpoint = make_checkpoint().truncate("model.safetensors", keep=0.5)
    ended = run("stats", checkpoint.path)
    assert ended.code == 2
    assert (
        "all values that were read are finite\nnot all of model.safetensors could be read: the file has " in ended.out
    )
    assert list(run("stats", checkpoint.path, "--format", "json").json["faults"]) == ["model.safetensors"]

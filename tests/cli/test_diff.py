"""`ckpt-rules diff` as a user sees it: what differs between two checkpoints, and by how much."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import diff
from ckpt_rules.testing import build_plain_torch


@pytest.fixture
def saves(tmp_path):
    return tuple(build_plain_torch(tmp_path / f"step-{10 * n}", epoch=n) for n in (1, 2))


@pytest.fixture
def weights(tmp_path):
    """A directory with one file of the given weights."""

    def make(name, tensors):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        return tmp_path / name

    return make


def tensors_of(found):
    return {t.tensor: t for t in found.tensors.changes}


def test_a_checkpoint_is_the_same_as_itself(saves, run):
    ended = run("diff", saves[0].path, saves[0].path)
    assert ended.code == 0
    assert "the same" in " ".join(ended.out.split())  # the paths decide where the line breaks


def test_two_saves_of_a_training_differ_in_every_section(saves, run):
    ended = run("diff", saves[0].path, saves[1].path)
    assert ended.code == 1
    for line in ("files       2 changed", "updates: 10 -> 20", "global_step: 10 -> 20", "last_epoch: 10 -> 20"):
        assert line in ended.out


def test_json_tells_the_same(saves, run):
    ended = run("diff", saves[0].path, saves[1].path, "--format", "json")
    assert ended.code == 1
    changed = {s["name"]: s["values"] for s in ended.json["sections"]["optimizer"]}
    assert changed["updates"] == [10, 20]
    assert {f["path"] for f in ended.json["files"]} == {"model.safetensors", "training_state.pth"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_how_much_a_weight_changed_is_what_torch_computes(weights, dtype):
    torch.manual_seed(1)
    before = torch.randn(300, 40).to(dtype)
    after = (before.double() + 0.01 * torch.randn(300, 40, dtype=torch.float64)).to(dtype)
    found = tensors_of(diff(weights("a", {"w": before}), weights("b", {"w": after})))["w"]
    a, b = before.double().flatten(), after.double().flatten()
    assert found.change == "changed"
    assert found.differing == int((a != b).sum())
    assert found.relative == pytest.approx(float((a - b).norm() / a.norm()))
    assert found.cosine == pytest.approx(float(a @ b / a.norm() / b.norm()))
    assert found.largest == pytest.approx(float((a - b).abs().max()))
    assert found.norms == pytest.approx((float(a.norm()), float(b.norm())))


def test_one_value_of_many_pieces_is_found(weights):
    before = torch.ones(5000, 4000)  # 80 MB: more than one piece
    after = before.clone()
    after[4999, 3999] = 3.0
    found = tensors_of(diff(weights("a", {"w": before}), weights("b", {"w": after})))["w"]
    assert (found.differing, found.largest, found.difference) == (1, 2.0, 2.0)
    assert found.norms == pytest.approx((math.sqrt(2e7), math.sqrt(2e7 + 8)))


def test_added_removed_reshaped_and_recast_are_told_apart(weights):
    one = {
        "same": torch.ones(3),
        "gone": torch.ones(2),
        "shape": torch.ones(4),
        "dtype": torch.tensor([1.0, 1.0009765625]),
    }
    other = {"same": torch.ones(3), "new": torch.ones(2), "shape": torch.ones(2, 2), "dtype": one["dtype"].bfloat16()}
    found = diff(weights("a", one), weights("b", other))
    assert {name: t.change.value for name, t in tensors_of(found).items()} == {
        "gone": "removed",
        "new": "added",
        "shape": "reshaped",
        "dtype": "recast",
    }
    assert (found.tensors.same, found.tensors.counts) == (1, (4, 4))
    assert tensors_of(found)["dtype"].differing == 1


def test_nan_in_both_is_no_difference_and_in_one_is_counted(weights):
    one = torch.tensor([1.0, math.nan, 2.0])
    other = torch.tensor([1.0, math.nan, math.nan])
    assert not diff(weights("a", {"w": one}), weights("b", {"w": one.clone()})).differ
    found = tensors_of(diff(weights("c", {"w": one}), weights("d", {"w": other})))["w"]
    assert (found.differing, found.not_finite) == (1, 2)


def test_large_integers_that_are_neighbours_differ(weights):
    one, other = torch.tensor([2**60]), torch.tensor([2**60 + 1])
    assert tensors_of(diff(weights("a", {"i": one}), weights("b", {"i": other})))["i"].differing == 1


def test_only_tensors_that_match_are_compared(saves, run):
    name = next(iter(load_file(saves[0] / "model.safetensors")))
    ended = run("diff", saves[0].path, saves[1].path, "--tensor", name, "--format", "json")
    assert ended.code == 1
    assert [t["tensor"] for t in ended.json["tensors"]["changes"]] == [name]
    assert (ended.json["files"], ended.json["sections"]) == ([], {})


def test_without_values_no_byte_is_read(weights, run):
    a, b = weights("a", {"w": torch.ones(5)}), weights("b", {"w": torch.zeros(5)})
    assert run("diff", a, b, "--no-values").code == 0
    assert run("diff", a, b).code == 1


def test_quiet_leaves_the_answer_to_the_exit_code(saves, run):
    ended = run("diff", saves[0].path, saves[1].path, "--quiet")
    assert (ended.code, ended.out, ended.err) == (1, "", "")


def test_a_path_without_a_checkpoint_is_a_usage_error(saves, run, tmp_path):
    ended = run("diff", saves[0].path, tmp_path / "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert "nowhere can't be looked into: there is nothing" in ended.err


def test_a_pattern_that_matches_nothing_is_one_too(saves, run):
    ended = run("diff", saves[0].path, saves[1].path, "--tensor", "zzz*")
    assert ended.code == 2
    assert "no tensor of either checkpoint matches 'zzz*'" in ended.err


def test_names_that_would_move_the_cursor_are_escaped(weights, run):
    a, b = weights("a", {"\x1b[2Jw": torch.ones(2)}), weights("b", {"\x1b[2Jw": torch.zeros(2)})
    for form in ("text", "json"):
        assert "\x1b" not in run("diff", a, b, "--format", form).out

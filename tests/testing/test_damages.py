"""Each damage does what its name says and nothing else; one that would do nothing is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ckpt_rules.testing import CheckpointDir, build_plain_torch

STATE, WEIGHTS, CONFIG = "training_state.pth", "model.safetensors", "config.json"


@pytest.fixture
def ck(tmp_path):
    return build_plain_torch(tmp_path / "ck")


@pytest.fixture
def other(tmp_path):
    return build_plain_torch(tmp_path / "other", epoch=7)


@pytest.fixture
def letters(tmp_path):
    return CheckpointDir(tmp_path / "letters").replace("f", b"abcdefgh")


def content(ck, file="f"):
    return (ck / file).read_bytes()


class TestBytes:
    def test_truncate_keeps_a_number_of_bytes_or_a_share(self, letters):
        assert content(letters.truncate("f", keep=6)) == b"abcdef"
        assert content(letters.truncate("f", keep=0.5)) == b"abc"

    def test_empty_keeps_nothing(self, letters):
        assert content(letters.empty("f")) == b""

    def test_zero_overwrites_a_range_or_all_to_the_end(self, letters):
        assert content(letters.zero("f", 1, 2)) == b"a\0\0defgh"
        assert content(letters.zero("f", 5)) == b"a\0\0de\0\0\0"

    def test_flip_bit_flips_one_bit_of_one_byte(self, letters):
        assert content(letters.flip_bit("f", 0, bit=1)) == b"cbcdefgh"
        assert content(letters.flip_bit("f", -1)) == b"cbcdefgi"

    def test_append_adds_at_the_end(self, letters):
        assert content(letters.append("f", b"!")) == b"abcdefgh!"

    def test_replace_writes_bytes_or_text(self, letters):
        assert content(letters.replace("f", "é")) == "é".encode()
        assert content(letters.replace("new/g", b"1"), "new/g") == b"1"


class TestFiles:
    def test_remove_and_rename(self, ck):
        ck.remove(CONFIG).rename(WEIGHTS, "weights/renamed.safetensors")
        assert sorted(p.name for p in ck.path.iterdir()) == [STATE, "weights"]
        assert not ck.remove("weights").path.joinpath("weights").exists()

    def test_swap_from_takes_a_file_of_another_checkpoint(self, ck, other):
        assert content(ck.swap_from(other, STATE), STATE) == content(other, STATE)

    def test_a_copy_is_damaged_alone(self, ck, tmp_path):
        copy = ck.copy(tmp_path / "copy").remove(WEIGHTS)
        assert not (copy / WEIGHTS).exists()
        assert (ck / WEIGHTS).exists()

    def test_an_lfs_pointer_names_the_size_of_the_file_that_it_stands_for(self, ck):
        size = len(content(ck, WEIGHTS))
        lines = content(ck.lfs_pointer(WEIGHTS), WEIGHTS).decode().splitlines()
        assert lines[0] == "version https://git-lfs.github.com/spec/v1"
        assert lines[2] == f"size {size}"


class TestRefusals:
    """A damage that changes nothing would let a test pass that proves nothing."""

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda ck: ck.truncate("f", keep=8), "keeping 8 bytes of the 8 of f does not cut it short"),
            (lambda ck: ck.zero("f", 4, 9), "bytes 4 to 13 do not lie in the 8 bytes of f"),
            (lambda ck: ck.zero("f", 0, 2).zero("f", 0, 2), "bytes 0 to 2 of f are zero already"),
            (lambda ck: ck.append("f", b""), "appending no bytes to f changes nothing"),
            (lambda ck: ck.swap_from(ck, "f"), "f is the same in both checkpoints"),
            (lambda ck: ck.edit(CONFIG, lambda value: None), "the edit of config.json changed nothing"),
            (lambda ck: ck.flip_bit("f", 8), "there is no byte 8 in the 8 bytes of f"),
        ],
    )
    def test_a_damage_that_does_nothing_is_refused(self, letters, damage, message):
        letters.write_json(CONFIG, {"a": 1})
        with pytest.raises(ValueError, match=message):
            damage(letters)

    def test_a_file_that_is_not_there_is_named_with_those_that_are(self, ck):
        with pytest.raises(
            FileNotFoundError, match=r"there is no model\.bin in .*, which holds config\.json, model\.s"
        ):
            ck.truncate("model.bin")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("with_torch", [True, False], ids=["torch", "no torch"])
class TestKeysOfATorchFile:
    def state(self, ck):
        return torch.load(ck / STATE, weights_only=True)

    @pytest.fixture
    def ck(self, tmp_path, with_torch, legacy):
        return build_plain_torch(tmp_path / "ck", with_torch=with_torch, legacy=legacy)

    def test_set_key_reaches_into_lists_tuples_and_integer_keys(self, ck):
        ck.set_key(STATE, "optimizer_state_dict.param_groups.0.lr", 7.0)
        ck.set_key(STATE, "optimizer_state_dict.param_groups.1.betas.0", 2.0)
        ck.set_key(STATE, "optimizer_state_dict.state.3.step", -1)
        ck.set_key(STATE, "new", None)
        state = self.state(ck)
        groups = state["optimizer_state_dict"]["param_groups"]
        assert (groups[0]["lr"], groups[1]["betas"]) == (7.0, (2.0, 0.999))
        assert state["optimizer_state_dict"]["state"][3]["step"] == -1
        assert state["new"] is None

    def test_rename_key_keeps_the_place_among_the_others(self, ck):
        before = list(self.state(ck))
        after = list(self.state(ck.rename_key(STATE, "optimizer_state_dict", "optimizer_state_dit")))
        assert after == ["optimizer_state_dit" if k == "optimizer_state_dict" else k for k in before]

    def test_drop_key_removes_one_entry(self, ck):
        ck.drop_key(STATE, "epoch").drop_key(STATE, "optimizer_state_dict.state.3.exp_avg")
        state = self.state(ck)
        assert "epoch" not in state
        assert sorted(state["optimizer_state_dict"]["state"][3]) == ["exp_avg_sq", "step"]

    def test_an_edit_keeps_the_container(self, ck, legacy):
        assert content(ck.drop_key(STATE, "epoch"), STATE).startswith(b"PK") is not legacy

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("optimiser.lr", "there is no 'optimiser.lr' in a dictionary with the keys 'epoch', 'step'"),
            ("optimizer_state_dict.param_groups.2.lr", "there is no '2.lr' in a list of 2 items"),
            ("epoch.x", "there is no 'x' in a int"),
        ],
    )
    def test_a_key_that_is_not_there_is_named_with_those_that_are(self, ck, key, message):
        with pytest.raises(KeyError, match=message):
            ck.set_key(STATE, key, 1)


def test_names_of_tensors_hold_dots_themselves(tmp_path):
    ck = build_plain_torch(tmp_path / "ck", one_file=True)
    ck.rename_key("checkpoint.pt", "model_state_dict.model.norm.weight", "model.norm.wight")
    weights = torch.load(ck / "checkpoint.pt")["model_state_dict"]
    assert "model.norm.wight" in weights
    assert "model.norm.weight" not in weights


def test_keys_of_json_and_of_safetensors_metadata(ck):
    ck.set_key(CONFIG, "vocab_size", 3).set_key(WEIGHTS, "format", "tf").set_key(WEIGHTS, "step", "7")
    assert json.loads(content(ck, CONFIG))["vocab_size"] == 3
    with safe_open(ck / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "tf", "step": "7"}


@pytest.mark.parametrize("with_torch", [True, False], ids=["torch", "no torch"])
def test_edit_of_safetensors_gets_the_tensors_and_keeps_the_metadata(tmp_path, with_torch):
    ck = build_plain_torch(tmp_path / "ck", with_torch=with_torch)
    ck.edit(WEIGHTS, lambda tensors: {"only": tensors["lm_head.weight"]})
    assert list(load_file(ck / WEIGHTS)) == ["only"]
    with safe_open(ck / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_edit_header_leaves_the_data_as_it_is(ck):
    before = load_file(ck / WEIGHTS)
    ck.edit_header(WEIGHTS, lambda header: header["lm_head.weight"].update(shape=[8, 16]))
    after = load_file(ck / WEIGHTS)
    assert after["lm_head.weight"].shape == (8, 16)
    assert torch.equal(after["lm_head.weight"].flatten(), before["lm_head.weight"].flatten())


def test_a_checkpoint_of_ones_own_layout_starts_from_an_empty_directory(tmp_path):
    ck = CheckpointDir(tmp_path / "runs" / "own")
    ck.write_json("meta/run.json", {"step": 7}).write_torch("state.pt", {"a": torch.ones(2)})
    ck.write_safetensors("w.safetensors", {"a": torch.ones(2)})
    assert json.loads(content(ck, "meta/run.json")) == {"step": 7}
    assert torch.load(ck / "state.pt")["a"].tolist() == [1, 1]
    assert load_file(ck / "w.safetensors")["a"].tolist() == [1, 1]

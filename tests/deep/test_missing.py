"""What could not be looked at is never taken for whole: a rule that reads bytes is then kept from its answer, and says by what."""

from __future__ import annotations

import json

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from ckpt_rules import Measure, Verdict, Wanted, verify
from ckpt_rules.deep.facts import unread_files
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.testing import CheckpointDir
from ckpt_rules_integrity.checksums import Crc
from ckpt_rules_numerics.finite import NonFinite

EVERYTHING = Wanted(Measure.ALL, checksums=True)


def test_of_a_whole_checkpoint_nothing_is_missed(make_checkpoint):
    assert unread_files(checkpoint_at(make_checkpoint().path), EVERYTHING) == {}


@pytest.mark.parametrize("file", ["model.safetensors", "training_state.pth"])
def test_a_file_that_was_cut_keeps_the_rule_from_its_answer(make_checkpoint, run_rule, file):
    checkpoint = make_checkpoint().truncate(file, keep=0.5)
    size = (checkpoint / file).stat().st_size
    result = run_rule(NonFinite(), checkpoint)
    result.assert_skipped(f"not all bytes of {file} could be looked at: ", blocked_by=file)
    assert f"{size:,} bytes" in result.reason
    report = verify(checkpoint, ruleset="deep", select="numerics/*")
    assert report.verdict is Verdict.UNKNOWN


def test_what_was_found_before_stands(make_checkpoint, run_rule):
    def spoil(state):
        state["optimizer_state_dict"]["state"][0]["exp_avg"][0, 0] = torch.nan
        return state

    checkpoint = make_checkpoint(epoch=1).edit("training_state.pth", spoil).truncate("model.safetensors", keep=0.5)
    outcome = run_rule(NonFinite(), checkpoint).outcome
    assert [f.place.path for f in outcome.findings] == ["training_state.pth"]
    assert (outcome.status, outcome.blocked_by) == ("failed", "model.safetensors")


def test_a_cut_archive_keeps_the_checksums_from_their_answer(make_checkpoint, run_rule):
    checkpoint = make_checkpoint().truncate("training_state.pth", keep=0.5)
    result = run_rule(Crc(), checkpoint)
    result.assert_skipped("not all bytes of training_state.pth could be looked at: ", blocked_by="training_state.pth")


def test_an_empty_file_and_a_stand_in_are_missed(make_checkpoint):
    checkpoint = make_checkpoint().empty("model.safetensors").lfs_pointer("training_state.pth")
    assert unread_files(checkpoint_at(checkpoint.path), Wanted(Measure.RANGE)) == {
        "model.safetensors": "it is empty",
        "training_state.pth": "its content is a stand-in, git-LFS pointer",
    }


def test_a_broken_link_is_missed(make_checkpoint):
    checkpoint = make_checkpoint().remove("model.safetensors")
    (checkpoint / "model.safetensors").symlink_to("nowhere.safetensors")
    missed = unread_files(checkpoint_at(checkpoint.path), Wanted(Measure.RANGE))
    assert missed == {"model.safetensors": "it is a broken link"}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(
    ("damage", "why"), [("remove", "it is missing"), ("empty", "the chunk of model.w can't be read")]
)
def test_files_of_a_distributed_checkpoint_are_missed(tmp_path, damage, why):
    dcp.save({"model": {"w": torch.randn(30, 3)}}, checkpoint_id=tmp_path, no_dist=True)
    checkpoint = CheckpointDir(tmp_path)
    assert unread_files(checkpoint_at(tmp_path), EVERYTHING) == {}
    getattr(checkpoint, damage)("__0_0.distcp")
    missed = unread_files(checkpoint_at(tmp_path), EVERYTHING)
    assert list(missed) == ["__0_0.distcp"]
    assert missed["__0_0.distcp"].startswith(why)


def test_tensors_that_overlap_too_often_to_be_read_are_missed(tmp_path):
    base = torch.randn(4000)
    torch.save({f"view{i}": base[i : i + 3000] for i in range(200)}, tmp_path / "views.pt")
    assert unread_files(checkpoint_at(tmp_path), Wanted(Measure.RANGE)) == {
        "views.pt": "too many of its tensors overlap"
    }


@pytest.mark.parametrize(
    "value",
    [{"step": 3}, {"w": torch.empty(2, device="meta")}, {"w": torch.empty(0)}, {"w": torch.randn(8, 8)[:, ::2]}],
    ids=["no tensor", "meta", "no elements", "gaps"],
)
def test_what_has_no_place_by_its_nature_is_not_missed(tmp_path, value):
    torch.save(value, tmp_path / "state.pt")
    assert unread_files(checkpoint_at(tmp_path), EVERYTHING) == {}


def test_files_of_other_kinds_are_not_missed(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "vendor.bin").write_bytes(bytes(range(1, 256)))
    (tmp_path / "notes.pt").write_text("just a text")
    (tmp_path / "index.json").write_text(json.dumps({"a": 1}))
    assert unread_files(checkpoint_at(tmp_path), EVERYTHING) == {}

"""previous/progress-went-back, tensor-set, shape-or-dtype and smaller: what headers and sizes of two saves tell."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules.testing import build_plain_torch
from ckpt_rules_previous.files import Smaller
from ckpt_rules_previous.progress import ProgressWentBack
from ckpt_rules_previous.tensors import ShapeOrDtype, TensorSet

RULES = [ProgressWentBack, ShapeOrDtype, Smaller, TensorSet]


@pytest.mark.parametrize("rule", RULES)
def test_the_next_save_of_a_run_passes(saves, run_rule, rule):
    run_rule(rule(), saves[1]).assert_passed()


@pytest.mark.parametrize("rule", RULES)
def test_the_same_save_twice_passes(saves, run_rule, rule):
    run_rule(rule(), saves[1], previous=saves[1].path).assert_passed()


class TestProgressWentBack:
    def test_a_lower_global_step(self, saves, run_rule):
        saves[1].set_key("training_state.pth", "global_step", 7)
        found = run_rule(ProgressWentBack(), saves[1]).assert_one(
            path="training_state.pth",
            key="global_step",
            message="the global step is 7, but it was 10 in the previous save, epoch-1",
        )
        assert (found.data["before"], found.data["after"]) == (10, 7)

    def test_without_a_global_step_the_batches_are_counted(self, saves, run_rule):
        for save in saves:
            save.drop_key("training_state.pth", "global_step")
        run_rule(ProgressWentBack(), saves[1]).assert_passed()
        found = run_rule(ProgressWentBack(), saves[0], previous=saves[1].path).assert_one(path="training_state.pth")
        assert (found.data["counter"], found.data["before"], found.data["after"]) == (
            "number of optimizer updates",
            20,
            10,
        )

    def test_batches_of_another_size_are_not_counted_against_one_another(self, saves, run_rule):
        for save in saves:
            save.drop_key("training_state.pth", "global_step")
        saves[1].set_key("training_state.pth", "total_batches", 1)
        run_rule(ProgressWentBack(), saves[1]).assert_passed()


class TestTensorSet:
    def test_weights_that_are_gone_and_new(self, saves, change_weights, run_rule):
        change_weights(saves[1], lambda w: {("module." + n if n == "lm_head.weight" else n): t for n, t in w.items()})
        found = run_rule(TensorSet(), saves[1]).assert_one(
            path="model.safetensors",
            tensor="module.lm_head.weight",
            message="weights of epoch-1 are gone: lm_head.weight; 1 of",
        )
        assert (found.data["gone"], found.data["new"]) == (["lm_head.weight"], ["module.lm_head.weight"])

    def test_a_damaged_file_is_no_new_set(self, saves, run_rule):
        saves[1].truncate("model.safetensors", keep=0.5)
        run_rule(TensorSet(), saves[1]).assert_skipped(blocked_by="model.safetensors")


class TestShapeOrDtype:
    def test_another_dtype(self, saves, change_weights, run_rule):
        change_weights(saves[1], lambda w: w | {"lm_head.weight": w["lm_head.weight"].bfloat16()})
        found = run_rule(ShapeOrDtype(), saves[1]).assert_one(path="model.safetensors", tensor="lm_head.weight")
        assert (found.data["before"]["dtype"], found.data["after"]["dtype"], found.data["tensors"]) == (
            "float32",
            "bfloat16",
            1,
        )

    def test_another_shape(self, saves, change_weights, run_rule):
        change_weights(saves[1], lambda w: w | {"lm_head.weight": torch.zeros(3, 2)})
        found = run_rule(ShapeOrDtype(), saves[1]).assert_one(message="it is float32 [3, 2], but was float32 [")
        assert found.data["after"]["shape"] == [3, 2]

    def test_ten_are_named_and_all_are_counted(self, saves, change_weights, run_rule):
        change_weights(saves[1], lambda w: {n: t.half() for n, t in w.items()})
        found = run_rule(ShapeOrDtype(), saves[1]).findings
        assert len(found) == 10
        assert (
            f"{found[0].data['tensors']:,} of {found[0].data['tensors']:,} weights differ like this" in found[0].message
        )


class TestSmaller:
    def test_an_optimizer_that_was_left_out(self, saves, run_rule):
        before = (saves[0] / "training_state.pth").stat().st_size
        saves[1].set_key("training_state.pth", "optimizer_state_dict", None)
        after = (saves[1] / "training_state.pth").stat().st_size
        found = run_rule(Smaller(), saves[1]).assert_one(
            path="training_state.pth",
            message=f"training_state.pth has {after:,} bytes; it had {before:,} bytes in the previous save, epoch-1",
        )
        assert (found.data["before"], found.data["after"]) == (before, after)

    def test_a_file_that_is_gone(self, saves, run_rule):
        saves[1].remove("model.safetensors")
        run_rule(Smaller(), saves[1]).assert_one(path="model.safetensors", message="model.safetensors is gone; it had ")

    def test_a_small_file_may_go(self, saves, run_rule):
        saves[0].write_json("notes.json", {"a": 1})
        run_rule(Smaller(), saves[1]).assert_passed()

    def test_what_git_keeps_may_go(self, saves, run_rule):
        (saves[0] / ".git").mkdir()
        (saves[0] / ".git/pack").write_bytes(b"x" * 100_000)
        run_rule(Smaller(), saves[1], previous=saves[0].path).assert_passed()

    def test_other_numbers_in_the_names_of_files_do_not_matter(self, saves, run_rule):
        for save, number in zip(saves, (1, 2), strict=True):
            save.rename("training_state.pth", f"state_{number}.bin")
        run_rule(Smaller(), saves[1], previous=saves[0].path).assert_passed()

    def test_the_share_is_an_option(self, saves, run_rule):
        saves[0].append("training_state.pth", b"\0" * (saves[0] / "training_state.pth").stat().st_size)
        run_rule(Smaller(share=0.4), saves[1], previous=saves[0].path).assert_passed()
        run_rule(Smaller(share=0.6), saves[1], previous=saves[0].path).assert_one(path="training_state.pth")

    def test_of_one_file_its_size_is_compared(self, tmp_path, run_rule):
        for step, rows in ((10, 1000), (20, 10)):
            saved = {
                "state_dict": {"w": torch.zeros(rows, 8)},
                "epoch": 1,
                "global_step": step,
                "loops": {},
                "callbacks": {},
            }
            torch.save(
                saved | {"pytorch-lightning_version": "2.5.0", "optimizer_states": [], "lr_schedulers": []},
                tmp_path / f"step={step}.ckpt",
            )
        sizes = [(tmp_path / f"step={step}.ckpt").stat().st_size for step in (10, 20)]
        run_rule(Smaller(), tmp_path / "step=20.ckpt").assert_one(
            path="step=20.ckpt",
            message=f"the file has {sizes[1]:,} bytes; it had {sizes[0]:,} bytes in the previous save, step=10.ckpt",
        )


def test_three_saves_of_a_run_pass(tmp_path, run_rule):
    later = [build_plain_torch(tmp_path / f"epoch-{e}", epoch=e) for e in (1, 2, 3)][-1]
    for rule in RULES:
        run_rule(rule(), later).assert_passed()

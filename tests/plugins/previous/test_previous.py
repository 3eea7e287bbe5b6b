"""The rules previous/*: a checkpoint against the save before it, named by the user or found in its run."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import verify
from ckpt_rules.testing import build_plain_torch
from ckpt_rules_previous.files import Smaller
from ckpt_rules_previous.optimizer import OptimizerReset
from ckpt_rules_previous.progress import ProgressWentBack
from ckpt_rules_previous.tensors import ShapeOrDtype, TensorSet
from ckpt_rules_previous.values import NormJump, Unchanged

HISTORY = ["lacks-file", "other-history", "plan-changed", "progress-went-back", "run-ahead", "stale-state"]
RULES = [NormJump(), OptimizerReset(), ProgressWentBack(), ShapeOrDtype(), Smaller(), TensorSet(), Unchanged()]


@pytest.fixture
def saves(tmp_path):
    """Two saves of one run, an epoch of ten updates apart, side by side."""
    one = build_plain_torch(tmp_path / "run" / "step-10", epoch=1)
    return one, build_plain_torch(tmp_path / "run" / "step-20", epoch=2)


def change(checkpoint, edit):
    """Edit the weights of a checkpoint."""
    tensors = load_file(checkpoint / "model.safetensors")
    edit(tensors)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})


def matrix(checkpoint):
    """The name of a weight with two dimensions."""
    return next(n for n, t in load_file(checkpoint / "model.safetensors").items() if t.ndim == 2 and t.numel() >= 64)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_two_saves_of_one_training_pass(rule, saves, run_rule):
    run_rule(rule, saves[1]).assert_passed()
    run_rule(rule, saves[1], previous=saves[0]).assert_passed()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_without_a_save_before_they_are_skipped(rule, make_checkpoint, run_rule):
    run_rule(rule, make_checkpoint()).assert_skipped("no earlier save of its run lies beside it")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_first_save_of_a_run_has_none_before_it(rule, saves, run_rule):
    run_rule(rule, saves[0]).assert_skipped("no earlier save of its run lies beside it")


def test_an_incomplete_save_is_passed_over(saves, run_rule, tmp_path):
    broken = saves[0].copy(tmp_path / "run" / "step-15").remove("training_state.pth")
    assert broken
    result = run_rule(Unchanged(), saves[1])
    result.assert_passed()


class TestUnchanged:
    def test_weights_that_stayed_while_steps_were_made_are_told(self, saves, run_rule):
        saves[1].swap_from(saves[0], "model.safetensors")
        count = len(load_file(saves[0] / "model.safetensors"))
        found = run_rule(Unchanged(), saves[1]).assert_one(
            path="model.safetensors",
            severity="error",
            message=f"10 steps were made since step-10, but all {count} weights are the same, bit for bit",
        )
        assert (found.data["steps"], found.data["of"], found.data["previous"]) == (10, count, "step-10")

    def test_one_weight_that_moved_is_enough(self, saves, run_rule):
        saves[1].swap_from(saves[0], "model.safetensors")
        change(saves[1], lambda tensors: tensors[matrix(saves[1])].add_(1e-3))
        run_rule(Unchanged(), saves[1]).assert_passed()


class TestNormJump:
    @pytest.mark.parametrize(("factor", "said"), [(1000.0, "1,000 times"), (0.0, "zero, and was not")])
    def test_a_weight_that_jumped_is_named_with_both_sizes(self, saves, run_rule, factor, said):
        name = matrix(saves[1])
        change(saves[1], lambda tensors: tensors[name].mul_(factor))
        found = run_rule(NormJump(), saves[1]).assert_one(path="model.safetensors", tensor=name, severity="warning")
        assert (found.data["tensors"], found.data["previous"]) == (1, "step-10")
        assert said.partition(" ")[0].replace(",", "")[:2] in found.message.replace(",", "")
        before = load_file(saves[0] / "model.safetensors")[name].double()
        assert found.data["before"] == pytest.approx(float(before.square().mean().sqrt()))

    def test_the_factor_is_an_option(self, saves, run_rule):
        name = matrix(saves[1])
        change(saves[1], lambda tensors: tensors[name].mul_(50))
        run_rule(NormJump(factor=100), saves[1]).assert_passed()
        run_rule(NormJump(factor=20), saves[1]).assert_one(tensor=name)


class TestProgressWentBack:
    def test_a_lower_step_is_told_with_both(self, saves, run_rule):
        found = run_rule(ProgressWentBack(), saves[0], previous=saves[1]).assert_one(
            path="training_state.pth",
            severity="error",
            message="the global step is 10, but it was 20 in the previous save, step-20",
        )
        assert (found.data["before"], found.data["after"]) == (20, 10)


class TestTensorSet:
    def test_a_weight_that_is_gone_and_one_that_is_new_are_named(self, saves, run_rule):
        name = matrix(saves[1])
        change(saves[1], lambda tensors: tensors.update({"extra.weight": tensors.pop(name)}))
        found = run_rule(TensorSet(), saves[1]).assert_one(path="model.safetensors", severity="error")
        assert (found.data["gone"], found.data["new"]) == ([name], ["extra.weight"])
        assert f"weights of step-10 are gone: {name}; 1 of" in found.message


class TestShapeOrDtype:
    def test_another_shape_and_another_dtype_are_told_with_both(self, saves, run_rule):
        name = matrix(saves[1])
        shape = list(load_file(saves[0] / "model.safetensors")[name].shape)

        def edit(tensors):
            tensors[name] = torch.zeros(3, 5, dtype=torch.bfloat16)

        change(saves[1], edit)
        found = run_rule(ShapeOrDtype(), saves[1]).assert_one(path="model.safetensors", tensor=name, severity="error")
        assert found.data["before"] == {"dtype": "float32", "shape": shape}
        assert found.data["after"] == {"dtype": "bfloat16", "shape": [3, 5]}


class TestSmaller:
    def test_a_file_that_shrank_is_told_with_both_sizes(self, saves, run_rule):
        before = (saves[0] / "training_state.pth").stat().st_size
        saves[1].truncate("training_state.pth", keep=0.3)
        after = (saves[1] / "training_state.pth").stat().st_size
        run_rule(Smaller(), saves[1]).assert_one(
            path="training_state.pth",
            severity="warning",
            message=f"training_state.pth has {after:,} bytes; it had {before:,} bytes in the previous save, step-10",
            data={"before": before, "after": after},
        )

    def test_names_by_digest_are_of_one_kind(self, saves, run_rule):
        for save, digest in zip(saves, ("0a1b2c3d4e5f6a7b8c9d", "ffeeddccbbaa99887766"), strict=True):
            (save / digest).write_bytes(bytes(200_000))
        run_rule(Smaller(), saves[1]).assert_passed()


class TestOptimizerReset:
    def test_fewer_updates_than_before_are_told_with_both(self, saves, run_rule):
        def restart(state):
            for parameter in state["optimizer_state_dict"]["state"].values():
                parameter["step"] = torch.tensor(3.0)
            return state

        saves[1].edit("training_state.pth", restart)
        run_rule(OptimizerReset(), saves[1]).assert_one(
            path="training_state.pth",
            severity="error",
            message="the optimizer has counted 3 updates, but 10 in the previous save, step-10: it was restarted",
            data={"before": 10, "after": 3},
        )

    def test_moments_that_are_all_zero_are_told(self, saves, run_rule):
        def empty(state):
            for parameter in state["optimizer_state_dict"]["state"].values():
                parameter["exp_avg"].zero_()
                parameter["exp_avg_sq"].zero_()
            return state

        saves[1].edit("training_state.pth", empty)
        run_rule(OptimizerReset(), saves[1]).assert_one(
            path="training_state.pth",
            message="moments of the optimizer are zero, but they were not in the previous save",
        )


# Which save is the one before, and when it is compared with


def test_with_an_earlier_save_those_that_read_no_bytes_run_in_every_ruleset(saves):
    ran = {o.rule for o in verify(saves[1], previous=saves[0]).outcomes if o.rule.startswith("previous/")}
    history = {f"previous/{i}" for i in HISTORY}
    assert ran == history | {"previous/shape-or-dtype", "previous/smaller", "previous/tensor-set"}
    assert {o.rule for o in verify(saves[1]).outcomes if o.rule.startswith("previous/")} == history
    deep = {o.rule for o in verify(saves[1], ruleset="deep").outcomes if o.rule.startswith("previous/")}
    assert deep == {rule.id for rule in RULES} | history

"""previous/unchanged, norm-jump and optimizer-reset: what the bytes of two saves tell."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules_previous.optimizer import OptimizerReset
from ckpt_rules_previous.values import NormJump, Unchanged

RULES = [NormJump, OptimizerReset, Unchanged]
STATE = "training_state.pth"
EMBEDDING = "model.embed_tokens.weight"


def flipped(weight):
    """The weight with the highest bit of the exponent of its first value flipped."""
    bits = weight.clone().view(torch.int32)
    bits[0, 0] ^= 1 << 30
    return bits.view(torch.float32)


@pytest.mark.parametrize("rule", RULES)
def test_the_next_save_of_a_run_passes(saves, run_rule, rule):
    run_rule(rule(), saves[1]).assert_passed()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad])
@pytest.mark.parametrize("frozen", [(), ("body",), ("score",)])
def test_training_passes_whatever_the_optimizer_and_whatever_is_frozen(trained, run_rule, rule, optimizer, frozen):
    later = trained(optimizer=optimizer, frozen=frozen)[1]
    assert run_rule(rule(), later).findings == ()


def keep_weights(saves):
    saves[1].swap_from(saves[0], "model.safetensors")


class TestUnchanged:
    def test_all_weights_are_those_of_the_save_before(self, saves, run_rule):
        keep_weights(saves)
        found = run_rule(Unchanged(), saves[1]).assert_one(
            path="model.safetensors", message="10 steps were made since epoch-1, but all "
        )
        assert (found.data["which"], found.data["steps"], len(found.data["tensors"])) == ("all", 10, found.data["of"])

    def test_one_that_changed_is_enough(self, saves, change_weights, run_rule):
        keep_weights(saves)
        change_weights(saves[1], lambda w: w | {"lm_head.weight": w["lm_head.weight"] + 1e-3})
        run_rule(Unchanged(), saves[1]).assert_passed()

    def test_the_same_step_twice_has_the_same_weights(self, saves, run_rule):
        run_rule(Unchanged(), saves[0], previous=saves[0].path).assert_skipped("no step was made between the two saves")

    def test_the_head_of_a_model_that_is_trained_whole(self, trained, change_weights, run_rule):
        before, after = trained()
        head = {n: t for n, t in load_file(before / "model.safetensors").items() if n.startswith("score.")}
        change_weights(after, lambda w: w | head)
        found = run_rule(Unchanged(), after).assert_one(
            path="model.safetensors", message="the head (score.bias, score.weight) is the same, bit for bit"
        )
        assert (found.data["which"], found.data["steps"]) == ("head", 3)

    def test_a_value_head_is_never_frozen(self, trained, run_rule):
        for save in trained(frozen=("score",)):
            weights = load_file(save / "model.safetensors")
            save_file({n.replace("score", "v_head.summary"): t for n, t in weights.items()}, save / "model.safetensors")
        run_rule(Unchanged(), save).assert_one(tensor="v_head.summary.bias")

    @pytest.mark.parametrize(
        ("updates", "rate"), [((1, 2), lambda u: 0.0 if u < 2 else 1e-2), ((3, 6), lambda u: 1e-2 if u < 3 else 0.0)]
    )
    def test_a_learning_rate_of_zero_explains_it(self, trained, run_rule, updates, rate):
        run_rule(Unchanged(), trained(updates=updates, rate=rate)[1]).assert_skipped(
            "the learning rate may have been zero"
        )


class TestNormJump:
    @pytest.mark.parametrize(("factor", "said"), [(1e4, "1e+04 times"), (1e-4, "1/1e+04 of"), (0, "zero, and was not")])
    def test_a_matrix_that_jumped(self, saves, change_weights, run_rule, factor, said):
        before = load_file(saves[0] / "model.safetensors")[EMBEDDING]
        change_weights(saves[1], lambda w: w | {EMBEDDING: before * factor})
        for save in saves:
            save.set_key(STATE, "optimizer_state_dict.param_groups.0.lr", 1e-6)
            save.set_key(STATE, "scheduler_state_dict.base_lrs", [1e-6])
        found = run_rule(NormJump(), saves[1]).assert_one(
            path="model.safetensors", tensor=EMBEDDING, message="1 weights jumped"
        )
        size = float(before.square().mean().sqrt())
        assert (found.data["before"], found.data["after"]) == (pytest.approx(size), pytest.approx(size * factor))
        assert f"its norm is {said}" in found.message

    def test_one_flipped_exponent_bit_is_a_jump(self, saves, change_weights, run_rule):
        change_weights(saves[1], lambda w: w | {EMBEDDING: flipped(w[EMBEDDING])})
        found = run_rule(NormJump(), saves[1]).assert_one(tensor=EMBEDDING)
        assert found.data["ratio"] > 1e10

    def test_what_begins_at_zero_may_grow(self, saves, change_weights, run_rule):
        for save, scale in zip(saves, (1e-4, 1.0), strict=True):
            change_weights(save, lambda w, s=scale: w | {EMBEDDING: w[EMBEDDING] * s})
        run_rule(NormJump(), saves[1]).assert_passed()

    def test_what_steps_of_this_learning_rate_can_do_is_no_jump(self, trained, change_weights, run_rule):
        later = trained(rate=lambda update: 1.0)[1]
        change_weights(later, lambda w: w | {"body.weight": torch.full((16, 8), 2.9)})
        run_rule(NormJump(), later).assert_passed()


class TestOptimizerReset:
    def test_fewer_updates_than_before(self, trained, run_rule):
        later = trained(updates=(5, 8), between=lambda model, opt: opt.state.clear())[1]
        found = run_rule(OptimizerReset(), later).assert_one(
            path=STATE,
            key="optimizer_state_dict",
            message="the optimizer has counted 3 updates, but 5 in the previous save, step-5: it was restarted",
        )
        assert (found.data["before"], found.data["after"]) == (5, 3)

    def test_moments_that_were_emptied(self, saves, run_rule):
        state = torch.load(saves[1] / STATE, weights_only=False)
        for kept in state["optimizer_state_dict"]["state"].values():
            kept["exp_avg"].zero_()
            kept["exp_avg_sq"].zero_()
        torch.save(state, saves[1] / STATE)
        found = run_rule(OptimizerReset(), saves[1]).assert_one(
            path=STATE,
            key="optimizer_state_dict",
            message="moments of the optimizer are zero, but they were not in the previous save",
        )
        assert found.data["moments"] == 2 * len(state["optimizer_state_dict"]["state"])

    def test_where_progress_went_back_the_optimizer_may_as_well(self, saves, run_rule):
        run_rule(OptimizerReset(), saves[0], previous=saves[1].path).assert_skipped(
            "no step was made between the two saves"
        )

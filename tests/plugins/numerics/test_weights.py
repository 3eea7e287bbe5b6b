"""numerics/all-zero, numerics/constant, numerics/huge, numerics/fp16-range and numerics/negative-second-moment."""

from __future__ import annotations

import pytest
import torch

from ckpt_rules_numerics.moments import NegativeSecondMoment
from ckpt_rules_numerics.weights import AllZero, Constant, Fp16Range, Huge

RULES = [AllZero(), Constant(), Huge()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_what_training_leaves_passes(rule, weights, healthy, run_rule):
    run_rule(rule, weights(healthy)).assert_passed()


@pytest.mark.parametrize("rule", [*RULES, Fp16Range(), NegativeSecondMoment()], ids=lambda rule: rule.id)
def test_a_trained_checkpoint_passes_or_says_why_not(rule, make_checkpoint, run_rule):
    assert run_rule(rule, make_checkpoint(epoch=2)).findings == ()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_without_weights_they_are_skipped(rule, make_checkpoint, run_rule):
    checkpoint = make_checkpoint()
    for file in (
        checkpoint.path.glob("model*.safetensors") if hasattr(checkpoint.path, "glob") else ["model.safetensors"]
    ):
        checkpoint.remove(getattr(file, "name", file))
    run_rule(rule, checkpoint).assert_skipped("there are no model weights")


class TestAllZero:
    def test_a_matrix_of_zeros_is_named(self, weights, healthy, run_rule):
        healthy["layer.weight"] = torch.zeros(16, 16)
        found = run_rule(AllZero(), weights(healthy)).assert_one(
            path="model.safetensors", tensor="layer.weight", message="1 of 3 weights is zero throughout: layer.weight"
        )
        assert (found.data["count"], found.data["of"]) == (1, 3)

    def test_negative_zeros_are_zeros(self, weights, healthy, run_rule):
        healthy["layer.weight"] = -torch.zeros(16, 16)
        run_rule(AllZero(), weights(healthy)).assert_one(tensor="layer.weight")

    @pytest.mark.parametrize(
        "name",
        [
            "attn.mask",
            "layer.weight_scale",
            "bn.running_mean",
            "layer.qzeros",
            "embeddings.token_type_embeddings.weight",
        ],
    )
    def test_what_is_not_trained_may_be_zero(self, name, weights, healthy, run_rule):
        run_rule(AllZero(), weights({**healthy, name: torch.zeros(8, 8)})).assert_passed()

    def test_vectors_may_be_zero(self, weights, healthy, run_rule):
        run_rule(AllZero(), weights({**healthy, "cls_token": torch.zeros(1, 1, 16)})).assert_passed()

    def test_what_an_adapter_adds_at_zero_is_let_pass_where_updates_are_not_counted(self, weights, healthy, run_rule):
        run_rule(AllZero(), weights({**healthy, "q_proj.lora_B.weight": torch.zeros(16, 4)})).assert_passed()


def adapter(folder, *, steps):
    """What the Trainer writes for a LoRA adapter whose second matrix is still zero."""
    folder.write_json("adapter_config.json", {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]})
    lora = {
        "base_model.model.q_proj.lora_A.weight": torch.randn(4, 16),
        "base_model.model.q_proj.lora_B.weight": torch.zeros(16, 4),
    }
    folder.write_safetensors("adapter_model.safetensors", lora)
    folder.write_json("trainer_state.json", {"global_step": steps, "epoch": 1.0, "max_steps": 100, "log_history": []})
    state = {
        i: {"step": torch.tensor(float(steps)), "exp_avg": t, "exp_avg_sq": t**2} for i, t in enumerate(lora.values())
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "params": [0, 1]}
    torch.save({"state": state, "param_groups": [group]}, folder / "optimizer.pt")
    return folder.remove("model.safetensors")


class TestAdapterAtZero:
    def test_after_training_it_is_found(self, weights, healthy, run_rule):
        found = run_rule(AllZero(), adapter(weights(healthy), steps=20)).assert_one(
            path="adapter_model.safetensors",
            tensor="base_model.model.q_proj.lora_B.weight",
            message="1 of 2 weights is zero throughout",
        )
        assert found.data["updates"] == 20

    @pytest.mark.parametrize("steps", [0, 1])
    def test_before_it_moved_it_may_be_zero(self, weights, healthy, run_rule, steps):
        result = run_rule(AllZero(), adapter(weights(healthy), steps=steps))
        result.assert_skipped(f"after {steps} optimizer updates, weights may still be zero")


class TestConstant:
    def test_a_matrix_of_one_number_is_named(self, weights, healthy, run_rule):
        healthy["layer.weight"] = torch.full((16, 16), 42.0)
        run_rule(Constant(), weights(healthy)).assert_one(
            path="model.safetensors",
            tensor="layer.weight",
            message="1 of 3 weights is the same number throughout: layer.weight",
        )

    @pytest.mark.parametrize("name", ["final_norm.weight", "ln_1.weight", "layer.weight_scale", "layer_scale.gamma"])
    def test_norms_and_scales_may_be_constant(self, name, weights, healthy, run_rule):
        run_rule(Constant(), weights({**healthy, name: torch.ones(8, 16)})).assert_passed()

    def test_few_elements_may_agree(self, weights, healthy, run_rule):
        run_rule(Constant(), weights({**healthy, "tiny.weight": torch.ones(7, 9)})).assert_passed()

    def test_zeros_belong_to_the_other_rule(self, weights, healthy, run_rule):
        run_rule(Constant(), weights({**healthy, "layer.weight": torch.zeros(16, 16)})).assert_passed()


class TestHuge:
    @pytest.mark.parametrize("value", [3.2e6, -3.2e6])
    def test_one_huge_value_is_named_with_its_size(self, value, weights, healthy, run_rule):
        healthy["layer.weight"][3, 4] = value
        found = run_rule(Huge(), weights(healthy)).assert_one(
            path="model.safetensors",
            tensor="layer.weight",
            message="1 of 3 weights exceed 1e+06 in absolute value: layer.weight reaches 3.2e+06",
        )
        assert found.data["peak"] == 3.2e6

    def test_the_limit_is_an_option(self, weights, healthy, run_rule):
        healthy["layer.weight"][0, 0] = 900.0
        run_rule(Huge(limit=1000), weights(healthy)).assert_passed()
        run_rule(Huge(limit=800), weights(healthy)).assert_one(tensor="layer.weight", message="exceed 800 in absolute")

    def test_a_moment_past_its_own_limit_is_named(self, make_checkpoint, run_rule):
        def spoil(state):
            state["optimizer_state_dict"]["state"][1]["exp_avg"].view(-1)[0] = -3e35
            return state

        found = run_rule(Huge(), make_checkpoint(epoch=1).edit("training_state.pth", spoil)).assert_one(
            path="training_state.pth",
            tensor="optimizer_state_dict.state.1.exp_avg",
            message="moments exceed 1e+15 in absolute value: optimizer_state_dict.state.1.exp_avg reaches 3e+35",
        )
        assert found.data["count"] == 1

    @pytest.mark.parametrize("name", ["bn.running_var", "attn_mask", "layer.weight_scale"])
    def test_statistics_masks_and_scales_may_be_huge(self, name, weights, healthy, run_rule):
        run_rule(Huge(), weights({**healthy, name: torch.full((4,), 1e9)})).assert_passed()


class TestFp16Range:
    def test_a_weight_beyond_float16_is_named_where_training_runs_in_it(self, weights, healthy, run_rule):
        healthy["layer.weight"][1, 1] = -70000.0
        found = run_rule(Fp16Range(), weights(healthy, config={"torch_dtype": "float16"})).assert_one(
            path="model.safetensors",
            tensor="layer.weight",
            message="1 of 3 weights exceed 65,504, the largest float16 number: layer.weight reaches 70000",
        )
        assert found.data["peak"] == 70000

    def test_the_largest_float16_passes(self, weights, healthy, run_rule):
        healthy["layer.weight"][1, 1] = 65504.0
        run_rule(Fp16Range(), weights(healthy, config={"dtype": "float16"})).assert_passed()

    def test_elsewhere_it_is_skipped(self, weights, healthy, run_rule):
        healthy["layer.weight"][1, 1] = 70000.0
        result = run_rule(Fp16Range(), weights(healthy, config={"dtype": "bfloat16"}))
        result.assert_skipped("nothing shows that training runs in float16")


class TestNegativeSecondMoment:
    def test_a_negative_mean_of_squares_is_named_with_its_value(self, make_checkpoint, run_rule):
        checkpoint = make_checkpoint(epoch=1)
        run_rule(NegativeSecondMoment(), checkpoint).assert_passed()

        def spoil(state):
            state["optimizer_state_dict"]["state"][0]["exp_avg_sq"][2, 3] = -0.25
            return state

        found = run_rule(NegativeSecondMoment(), checkpoint.edit("training_state.pth", spoil)).assert_one(
            path="training_state.pth",
            tensor="optimizer_state_dict.state.0.exp_avg_sq",
            message="second moments is -0.25",
        )
        assert (found.data["smallest"], found.data["tensors"]) == (-0.25, 1)

    def test_negative_first_moments_are_as_they_should_be(self, make_checkpoint, run_rule):
        def turn(state):
            for parameter in state["optimizer_state_dict"]["state"].values():
                parameter["exp_avg"] = -parameter["exp_avg"].abs()
            return state

        run_rule(NegativeSecondMoment(), make_checkpoint(epoch=1).edit("training_state.pth", turn)).assert_passed()

    def test_without_second_moments_it_is_skipped(self, weights, healthy, run_rule):
        result = run_rule(NegativeSecondMoment(), weights(healthy))
        result.assert_skipped("no optimizer in the checkpoint keeps second moments")

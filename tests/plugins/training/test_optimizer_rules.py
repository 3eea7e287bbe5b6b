"""optimizer/…: missing, hollow, out of step, of another model, with impossible numbers, in half precision."""

from __future__ import annotations

import math

import pytest
import torch

from ckpt_rules_training.empty_state import EmptyOptimizerState
from ckpt_rules_training.missing_parts import OptimizerMissing
from ckpt_rules_training.optimizer_params import ParamMismatch
from ckpt_rules_training.optimizer_steps import StepDrift, UnevenSteps
from ckpt_rules_training.optimizer_values import BadHyperparameter, MomentDtype

STATE = "training_state.pth"
OPT = "optimizer_state_dict"


def test_missing(make_checkpoint, run_rule, kit):
    ck = make_checkpoint().drop_key(STATE, OPT)
    finding = run_rule(OptimizerMissing(), ck).assert_one(path=STATE, key=OPT, severity="error")
    assert finding.message == (
        "there is no optimizer state: without it the optimizer's moments and counters start again from zero"
    )
    assert [f.rule for f in kit.verify(ck.path).findings] == ["optimizer/missing"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "'optimizer_state_dict' is None"),
        ("adamw", "'optimizer_state_dict' is text, where the state_dict of an optimizer belongs"),
        (3, "'optimizer_state_dict' is a number"),
        ({}, "'optimizer_state_dict' has no param_groups, where a list of dictionaries belongs"),
        ({"state": {}, "param_groups": []}, "has a list of 0 as param_groups"),
        ({"param_groups": [{"lr": 1, "params": [0]}]}, "'optimizer_state_dict' has no state"),
        ({"state": [1], "param_groups": [{"lr": 1, "params": [0]}]}, "has a list of 1 as state"),
        (torch.zeros(3), "'optimizer_state_dict' is a float32 tensor of shape [3]"),
    ],
)
def test_something_else_in_its_place(value, said, make_checkpoint, run_rule, kit):
    ck = make_checkpoint().set_key(STATE, OPT, value)
    run_rule(OptimizerMissing(), ck).assert_one(path=STATE, key=OPT, message=said, severity="error")
    report = kit.verify(ck.path)
    assert [f.rule for f in report.findings] == ["optimizer/missing"]
    assert not [o for o in report.outcomes if o.crash]


def test_present(make_checkpoint, run_rule):
    run_rule(OptimizerMissing(), make_checkpoint()).assert_passed()
    run_rule(OptimizerMissing(), make_checkpoint(one_file=True)).assert_passed()
    run_rule(OptimizerMissing(), make_checkpoint().remove(STATE)).assert_skipped("there is no training state")


def test_a_damaged_optimizer_file_is_reported_by_others(kit, tmp_path, run_rule):
    path = kit.save_canonical(kit.train(), tmp_path / "ck", optimizer_state_dict=...)
    (path / "optimizer.pt").write_bytes(b"PK\x03\x04" + bytes(500))
    run_rule(OptimizerMissing(), path).assert_skipped("optimizer.pt can't be read", blocked_by="optimizer.pt")
    torch.save([1, 2], path / "optimizer.pt")
    run_rule(OptimizerMissing(), path).assert_one(path="optimizer.pt", message="optimizer.pt is a list of 2")


@pytest.mark.parametrize("optimizer", ["AdamW", "Adagrad", "RMSprop"])
def test_empty_state(optimizer, make_checkpoint, run_rule, kit):
    ck = make_checkpoint(optimizer=optimizer).set_key(STATE, f"{OPT}.state", {})
    run_rule(EmptyOptimizerState(), ck).assert_one(
        path=STATE,
        key=f"{OPT}.state",
        severity="error",
        message="the optimizer has 21 parameters and no state for any of them, although 20 updates were made",
    )
    assert [f.rule for f in kit.verify(ck.path).findings] == ["optimizer/empty-state"]


def test_empty_state_of_sgd(make_checkpoint, run_rule):
    run_rule(EmptyOptimizerState(), make_checkpoint(optimizer="SGD")).assert_passed()
    ck = make_checkpoint(optimizer="SGD", optimizer_options={"momentum": 0.9})
    run_rule(EmptyOptimizerState(), ck).assert_passed()
    run_rule(EmptyOptimizerState(), ck.set_key(STATE, f"{OPT}.state", {})).assert_one(
        data={"kind": "SGD with momentum"}
    )


def test_entries_that_hold_nothing_are_empty_too(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{OPT}.state", {i: {} for i in range(21)})
    run_rule(EmptyOptimizerState(), ck).assert_one(key=f"{OPT}.state")


def test_empty_before_the_first_update(kit, tmp_path, run_rule):
    path = kit.save_canonical(kit.train(epochs=0), tmp_path / "ck", epoch=0)
    run_rule(EmptyOptimizerState(), path).assert_passed()


def test_empty_is_told_from_the_scheduler_alone(kit, tmp_path, run_rule):
    run = kit.train(scheduler=kit.cosine)
    empty = {**run.optimizer.state_dict(), "state": {}}
    state = {"model": run.model.state_dict(), "optimizer": empty, "scheduler": run.scheduler.state_dict(), "seen": 1}
    path = kit.save_one_file(tmp_path / "ck", state)
    run_rule(EmptyOptimizerState(), path).assert_one(message="although the scheduler has made 14 steps")


@pytest.mark.parametrize(
    ("updates", "severity"),
    [(2520, None), (2560, None), (2519, "warning"), (2561, "warning"), (2440, "warning"), (2439, "error"), (0, "error"), (5080, "error")],
)  # fmt: skip
def test_drift_is_graded(updates, severity, make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=2, step=0, total_batches=1270, scheduler=None, global_step=False)
    ck.edit(
        STATE,
        lambda state: [s.update(step=torch.tensor(float(updates))) for s in state[OPT]["state"].values()] and None,
    )
    result = run_rule(StepDrift(), ck)
    if severity is None:
        result.assert_passed()
        return
    drift = updates - 2540
    result.assert_one(
        path=STATE,
        key=f"{OPT}.state[0].step",
        severity=severity,
        message=f"the optimizer has made {updates:,} updates, but epoch 2 is complete at 1,270 batches each, "
        f"which implies 2,540: {abs(drift):,} {'more' if drift > 0 else 'fewer'}",
        data={"updates": updates, "expected": 2540, "drift": drift},
    )


@pytest.mark.parametrize("updates", [3040, 4310])
def test_either_reading_of_the_epoch_fits(updates, make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=3, step=500, total_batches=1270, updates=updates, global_step=False)
    run_rule(StepDrift(), ck).assert_passed()


def test_neither_reading_of_the_epoch_fits(make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=3, step=500, total_batches=1270, updates=3700, global_step=False)
    run_rule(StepDrift(), ck).assert_one(
        message="the optimizer has made 3,700 updates, but epoch 3 is at batch 500 of 1,270, which implies 3,040 "
        "(4,310 if it counts finished epochs): 660 more",
        severity="error",
    )


def test_a_global_step_that_contradicts_keeps_the_usual_reading(make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=3, step=500, total_batches=1270, updates=4310, global_step=True)
    run_rule(StepDrift(), ck).assert_one(data={"expected": 3040, "updates": 4310}, severity="error")


def test_drift_from_unrecorded_accumulation_says_how_to_record_it(make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=2, total_batches=1270, updates=635, global_step=False, scheduler=None)
    finding = run_rule(StepDrift(), ck).assert_one(severity="error", data={"updates": 635, "expected": 2540})
    assert "record `gradient_accumulation_steps: 4`" in finding.help
    assert "option `accumulation: 4`" in finding.help
    run_rule(StepDrift(accumulation=4), ck).assert_passed()
    run_rule(StepDrift(accumulation=3), ck).assert_one(data={"expected": 846})


def test_drift_against_a_global_step_alone(kit, tmp_path, run_rule):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "iter_num": 1000}
    path = kit.save_one_file(tmp_path / "ck", state, "ckpt.pt")
    run_rule(StepDrift(), path).assert_one(
        path="ckpt.pt", key="optimizer.state[0].step", severity="error",
        message="the optimizer has made 14 updates, but the recorded step says 1,000: 986 fewer",
    )  # fmt: skip


def test_drift_options(make_checkpoint, run_rule):
    ck = make_checkpoint(updates=15)
    run_rule(StepDrift(), ck).assert_passed()
    run_rule(StepDrift(tolerance=4), ck).assert_one(severity="warning", data={"drift": -5})
    run_rule(StepDrift(tolerance=4, error_beyond=4), ck).assert_one(severity="error")
    run_rule(StepDrift(tolerance=5), ck).assert_passed()


def test_a_scaler_may_have_skipped_a_few_updates_but_made_none_up(make_checkpoint, run_rule):
    usual = {"epoch": 2, "total_batches": 1270, "global_step": False, "scheduler": None}
    run_rule(StepDrift(), make_checkpoint(scaler=True, updates=2540 - 60, **usual)).assert_passed()
    run_rule(StepDrift(), make_checkpoint(scaler=False, updates=2540 - 60, **usual)).assert_one(data={"drift": -60})
    run_rule(StepDrift(), make_checkpoint(scaler=True, updates=2540 + 60, **usual)).assert_one(data={"drift": 60})
    run_rule(StepDrift(skipped_fraction=0), make_checkpoint(scaler=True, updates=2480, **usual)).assert_one()


def test_drift_says_when_the_global_step_sides_with_the_optimizer(make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=20, total_batches=100, updates=777, global_step=777)
    assert "the global step agrees with the optimizer" in run_rule(StepDrift(), ck).assert_one().help


def test_drift_needs_two_counts(make_checkpoint, run_rule, kit, tmp_path):
    run_rule(StepDrift(), make_checkpoint(optimizer="SGD")).assert_skipped(
        "the optimizer (SGD) keeps no update counters"
    )
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "epoch": 1}
    path = kit.save_one_file(tmp_path / "ck", state)
    run_rule(StepDrift(), path).assert_skipped("does not imply a number of optimizer updates")


def test_an_optimizer_from_another_save(make_checkpoint, kit):
    ck, other = make_checkpoint(epoch=20, total_batches=50), make_checkpoint(epoch=10, total_batches=50)
    theirs = torch.load(other / STATE)[OPT]
    ck.set_key(STATE, OPT, theirs)
    assert [f.rule for f in kit.verify(ck.path).findings] == ["optimizer/step-drift"]


def test_uneven_steps(make_checkpoint, run_rule):
    ck = make_checkpoint()
    for index in (3, 5):
        ck.set_key(STATE, f"{OPT}.state.{index}.step", torch.tensor(7.0))
    run_rule(UnevenSteps(), ck).assert_one(
        path=STATE,
        key=f"{OPT}.state[3].step",
        severity="warning",
        message="parameters have had different numbers of updates: 19 parameters had 20 updates, 2 parameters had 7 updates",
        data={"steps": {"7": 2, "20": 19}},
    )
    run_rule(UnevenSteps(tolerance=13), ck).assert_passed()


def test_groups_that_began_one_after_another(kit, tmp_path, run_rule):
    model = kit.Net()
    run = kit.train(model=model, params=lambda m: m.head.parameters())
    run.optimizer.add_param_group({"params": list(model.second.parameters()), "lr": 1e-4})
    for _ in range(3):
        model(torch.tensor([1])).sum().backward()
        run.optimizer.step()
    run_rule(UnevenSteps(), kit.save_canonical(run, tmp_path / "added")).assert_passed()
    run.optimizer.state[model.second.bias]["step"] -= 1
    run_rule(UnevenSteps(), kit.save_canonical(run, tmp_path / "within")).assert_one(key=f"{OPT}.state[2].step")
    for parameter in model.second.parameters():
        run.optimizer.state[parameter]["step"] = torch.tensor(99.0)
    run_rule(UnevenSteps(), kit.save_canonical(run, tmp_path / "ahead")).assert_one()


def test_even_steps(make_checkpoint, run_rule):
    run_rule(UnevenSteps(), make_checkpoint()).assert_passed()
    run_rule(UnevenSteps(), make_checkpoint(optimizer="SGD")).assert_skipped("keeps no update counters")


@pytest.mark.parametrize(("step", "said"), [(math.nan, "nan"), (-3, "-3"), (2.5, "2.5"), ("x", "'x'")])
def test_a_step_that_is_no_count(step, said, make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{OPT}.state.4.step", torch.tensor(step) if step != "x" else step)
    run_rule(UnevenSteps(), ck).assert_one(
        key=f"{OPT}.state[4].step",
        severity="error",
        message=f"the update counter of 1 parameter is not a count: {said}",
    )


def test_params_fit(make_checkpoint, run_rule):
    for weights in ("safetensors", "bin", "sharded"):
        run_rule(ParamMismatch(), make_checkpoint(weights=weights)).assert_passed()
    run_rule(ParamMismatch(), make_checkpoint(one_file=True)).assert_passed()
    run_rule(ParamMismatch(), make_checkpoint(weights=None)).assert_skipped("no model weights")


def test_state_of_a_parameter_that_no_group_knows(make_checkpoint, run_rule):
    ck = make_checkpoint().edit(STATE, lambda s: s[OPT]["state"].update({77: s[OPT]["state"][0]}))
    result = run_rule(ParamMismatch(), ck)
    result.assert_some(
        key=f"{OPT}.state[77]",
        severity="error",
        message="has an entry for 77, which is not a parameter of any of its 2 groups",
    )


def test_a_parameter_in_two_groups(make_checkpoint, run_rule):
    ck = make_checkpoint().edit(STATE, lambda s: s[OPT]["param_groups"][1]["params"].append(0))
    run_rule(ParamMismatch(), ck).assert_one(
        key=f"{OPT}.param_groups", message="1 parameter (0) appears more than once in param_groups"
    )


def test_moments_that_differ_in_shape(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{OPT}.state.2.exp_avg_sq", torch.zeros(5))
    finding = run_rule(ParamMismatch(), ck).assert_one(key=f"{OPT}.state[2]")
    assert finding.message == "the moments of parameter 2 differ in shape (exp_avg [4, 8], exp_avg_sq [5])"


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_one_moment_of_two(name, make_checkpoint, run_rule):
    ck = make_checkpoint().drop_key(STATE, f"{OPT}.state.2.{name}")
    run_rule(ParamMismatch(), ck).assert_one(
        key=f"{OPT}.state[2]",
        severity="error",
        message=f"the state of parameter 2 has no {name}, unlike other parameters",
    )


def test_two_optimizers_in_one(make_checkpoint, run_rule):
    def muon(state):
        moments = state[OPT]["state"][2]
        state[OPT]["state"][2] = {"momentum_buffer": moments["exp_avg"]}

    run_rule(ParamMismatch(), make_checkpoint().edit(STATE, muon)).assert_passed()


def test_moments_of_a_shape_that_no_weight_has(make_checkpoint, run_rule):
    ck = make_checkpoint()
    for name in ("exp_avg", "exp_avg_sq"):
        ck.set_key(STATE, f"{OPT}.state.0.{name}", torch.zeros(17, 8))
    run_rule(ParamMismatch(), ck).assert_one(
        path=STATE,
        key=f"{OPT}.state[0]",
        severity="error",
        message="there are more moments than weights of the same shape: 1 of shape [17, 8] for 0 weights",
        data={"shapes": [{"shape": [17, 8], "moments": 1, "weights": 0}]},
    )


def test_the_optimizer_of_another_model(make_checkpoint, run_rule, kit):
    ck = make_checkpoint()
    ck.swap_from(make_checkpoint(config={"hidden_size": 12}), STATE)
    finding = run_rule(ParamMismatch(), ck).assert_one(
        message="there are more moments than weights of the same shape: "
    )
    assert len(finding.data["shapes"]) == 6
    ck = make_checkpoint().swap_from(make_checkpoint(config={"num_hidden_layers": 3}), STATE)
    run_rule(ParamMismatch(), ck).assert_one(
        key=f"{OPT}.param_groups", message="the optimizer has 30 parameters, but there are only 21 weight tensors"
    )


def test_moments_of_sgd_on_the_wrong_parameters(make_checkpoint, run_rule):
    ck = make_checkpoint(optimizer="SGD", optimizer_options={"momentum": 0.9})
    run_rule(ParamMismatch(), ck).assert_passed()
    ck.set_key(STATE, f"{OPT}.state.3.momentum_buffer", torch.zeros(3, 3))
    run_rule(ParamMismatch(), ck).assert_one(key=f"{OPT}.state[3]", message="1 of shape [3, 3] for 0 weights")


def test_names_tell_moments_that_changed_places(kit, tmp_path, run_rule):
    run = kit.train(params=lambda m: [(n, p) for n, p in m.named_parameters()])
    path = kit.save_canonical(run, tmp_path / "ck")
    run_rule(ParamMismatch(), path).assert_passed()
    state = torch.load(path / STATE)
    moments = state[OPT]["state"]
    moments[0], moments[1] = moments[1], moments[0]
    torch.save(state, path / STATE)
    run_rule(ParamMismatch(), path).assert_one(
        key=f"{OPT}.state[0]", tensor="embed.weight",
        message="the moments of embed.weight have the shape [6, 4], the weight has [5, 4]; the same for 1 more",
    )  # fmt: skip


def test_incomplete_weights_are_not_compared(make_checkpoint, run_rule):
    ck = make_checkpoint(weights="sharded").remove("model-00002-of-00002.safetensors")
    run_rule(ParamMismatch(), ck).assert_skipped(
        "the weights are incomplete: model-00002-of-00002.safetensors is missing"
    )
    ck = make_checkpoint().truncate("model.safetensors")
    run_rule(ParamMismatch(), ck).assert_skipped(blocked_by="model.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "severity", "said"),
    [
        ("lr", math.nan, "error", "lr of parameter group 1 is nan, which is not finite"),
        ("lr", -1e-3, "error", "lr of parameter group 1 is -0.001, which is negative"),
        ("lr", math.inf, "error", "which is not finite"),
        ("lr", "1e-3", "error", "lr of parameter group 1 is '1e-3', which is not a number"),
        ("lr", True, "error", "which is not a number"),
        ("lr", torch.tensor(-1.0), "error", "lr of parameter group 1 is -1.0, which is negative"),
        ("lr", 0.0, "warning", "lr of parameter group 1 is 0, so its parameters do not train"),
        ("eps", -1e-8, "error", "eps of parameter group 1 is -1e-08, which is negative"),
        ("weight_decay", math.nan, "error", "weight_decay of parameter group 1 is nan, which is not finite"),
        ("betas", (0.9, 1.0), "error", "betas[1] of parameter group 1 is 1.0, expected less than 1"),
        ("betas", 0.9, "error", "betas of parameter group 1 is 0.9, expected two numbers"),
        ("lr", 10**400, "error", "lr of parameter group 1 is an integer of 1,329 bits, which is absurdly large"),
        ("betas", (-0.1, 0.9), "error", "betas[0] of parameter group 1 is -0.1, which is negative"),
    ],
)  # fmt: skip
def test_bad_hyperparameters(name, value, severity, said, make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{OPT}.param_groups.1.{name}", value)
    key = said.partition(" ")[0]
    where = {"key": f"{OPT}.param_groups[1].{key}"} if key in ("lr", "eps", "betas[0]", "betas[1]") else {}
    run_rule(BadHyperparameter(), ck).assert_one(path=STATE, severity=severity, message=said, **where)


def test_momentum_out_of_range(make_checkpoint, run_rule):
    ck = make_checkpoint(optimizer="SGD", optimizer_options={"momentum": 0.9}).set_key(
        STATE, f"{OPT}.param_groups.0.momentum", 1.5
    )
    run_rule(BadHyperparameter(), ck).assert_one(message="momentum of parameter group 0 is 1.5, expected less than 1")


def test_good_hyperparameters(make_checkpoint, run_rule):
    run_rule(BadHyperparameter(), make_checkpoint()).assert_passed()
    run_rule(BadHyperparameter(), make_checkpoint(optimizer_options={"lr": 30.0, "weight_decay": 2.0})).assert_passed()


def test_a_rate_of_zero_that_the_scheduler_set(make_checkpoint, run_rule):
    ck = make_checkpoint(planned_updates=20)
    run_rule(BadHyperparameter(), ck).assert_passed()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_moments_beside_float32_weights(dtype, make_checkpoint, run_rule):
    def halve(state):
        for entry in state[OPT]["state"].values():
            entry["exp_avg"] = entry["exp_avg"].to(dtype)

    ck = make_checkpoint().edit(STATE, halve)
    name = str(dtype).removeprefix("torch.")
    run_rule(MomentDtype(), ck).assert_one(
        path=STATE, key=f"{OPT}.state[0].exp_avg", severity="warning",
        message=f"21 moments of 42 are {name}, although the weights are float32",
    )  # fmt: skip


class TestRoundedWeights:
    """Float32 moments of torch's own optimizers: float32 weights were trained, and only half-precision ones were saved."""

    def rounded(self, make_checkpoint, dtype, options=None, **more):
        ck = make_checkpoint(dtype=str(dtype).removeprefix("torch."), **more)

        def edit(state):
            for entry in state[OPT]["state"].values():
                entry |= {name: entry[name].float() for name in ("exp_avg", "exp_avg_sq")}
            if options is not None:
                state[OPT]["param_groups"] = [options(group) for group in state[OPT]["param_groups"]]

        return ck.edit(STATE, edit)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_without_masters(self, make_checkpoint, run_rule, dtype):
        name = str(dtype).removeprefix("torch.")
        run_rule(MomentDtype(), self.rounded(make_checkpoint, dtype)).assert_one(
            path="model.safetensors", severity="warning",
            message=f"the weights are {name} but the optimizer's moments are float32: the float32 weights that were trained are not in",
        )  # fmt: skip

    def test_with_masters(self, make_checkpoint, run_rule):
        ck = self.rounded(make_checkpoint, torch.bfloat16, extra={"master_weights": {"w": torch.zeros(3)}})
        run_rule(MomentDtype(), ck).assert_passed()

    def test_an_optimizer_that_keeps_float32_moments_of_any_weight(self, make_checkpoint, run_rule):
        def apex(group):
            return {k: v for k, v in group.items() if k not in ("foreach", "fused", "capturable", "differentiable")}

        ck = self.rounded(make_checkpoint, torch.bfloat16, apex)
        run_rule(MomentDtype(), ck).assert_one(severity="info", message="no float32 master copy")

    def test_one_trained_in_float32_beside_frozen_ones(self, make_checkpoint, run_rule):
        def head(state):
            kept = state[OPT]["param_groups"][0]["params"][-1]
            state[OPT]["state"] = {
                kept: {"step": torch.tensor(9.0), "exp_avg": torch.zeros(3, 5), "exp_avg_sq": torch.zeros(3, 5)}
            }

        ck = self.rounded(make_checkpoint, torch.bfloat16).edit(STATE, head)
        ck.edit("model.safetensors", lambda t: t | {"head.weight": torch.zeros(3, 5)})
        run_rule(MomentDtype(), ck).assert_one(severity="info", message="no float32 master copy")


def test_no_float32_copy_of_half_precision_weights(make_checkpoint, run_rule):
    run_rule(MomentDtype(), make_checkpoint(dtype="bfloat16")).assert_one(
        path="model.safetensors", severity="info",
        message="the weights are bfloat16, and the checkpoint has no float32 master copy of them",
    )  # fmt: skip
    run_rule(
        MomentDtype(), make_checkpoint(dtype="bfloat16", extra={"master_weights": {"w": torch.zeros(3)}})
    ).assert_passed()
    run_rule(MomentDtype(), make_checkpoint()).assert_passed()

"""What lies in optimizer files and registered objects: each damaged as cases from runs were."""

from __future__ import annotations

import math

import pytest
import torch

from ckpt_rules_training.optimizer_holes import IncompleteState
from ckpt_rules_training.optimizer_params import ParamMismatch
from ckpt_rules_training.optimizer_values import BadHyperparameter
from tests.plugins.training.contents import OPT, STATE, findings, one


def test_clean_saves_are_silent(saved, accelerated):
    assert saved() == []
    assert accelerated() == []


@pytest.mark.parametrize("value", [None, [], [1], {}, 3])
def test_an_optimizer_file_with_something_else(value, saved):
    said = {"None": "is None", "[]": "a list of 0", "[1]": "a list of 1", "{}": "has no param_groups", "3": "a number"}
    one(saved("optimizer.pt", lambda _: value), "error", "optimizer/missing", "optimizer.pt", None, said[str(value)])


def test_accelerates_optimizer_file(accelerated):
    found = accelerated("optimizer.bin", lambda _: None)
    one(found, "error", "optimizer/missing", "optimizer.bin", None, "optimizer.bin is None, where the state_dict of an")
    found = accelerated("optimizer.bin", lambda value: [value])
    one(found, "error", "optimizer/missing", "optimizer.bin", None, "optimizer.bin is a list of 1")


def test_a_zero_partition_in_a_plain_file(saved):
    part = {"zero_stage": 2, "partition_count": [2], "single_partition_of_fp32_groups": [torch.zeros(4)]}
    found = saved("optimizer.pt", lambda _: {"optimizer_state_dict": part, "ds_version": "0.17"})
    one(
        found,
        "error",
        "optimizer/missing",
        "optimizer.pt",
        None,
        "looks like one rank's partition of a DeepSpeed ZeRO optimizer",
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "lr",
            ...,
            "lr of parameter group 0 is missing, but the optimizer reads it at every update and fails without it",
        ),
        ("betas", ..., "betas of parameter group 0 is missing"),
        ("eps", ..., "eps of parameter group 0 is missing"),
        ("weight_decay", ..., "weight_decay of parameter group 0 is missing"),
        ("eps", None, "eps of parameter group 0 is None"),
        ("eps", 1e30, "eps of parameter group 0 is 1e+30, which is absurdly large"),
        ("betas", (None, 0.99), "betas of parameter group 0 is (None, 0.99), expected two numbers"),
        ("betas", (0.9,), "betas of parameter group 0 is (0.9,), expected two numbers"),
        ("betas", (0.9, 0.99, 0.9), "expected two numbers"),
        (
            "betas",
            torch.zeros(2, 3),
            "betas of parameter group 0 is a float32 tensor of shape [2, 3], expected two numbers",
        ),
    ],
)
def test_options_of_groups(name, value, said, saved):
    def change(state):
        first, *others = state["param_groups"]
        group = {k: v for k, v in {**first, name: value}.items() if v is not ...}
        return {**state, "param_groups": [group, *others]}

    found = [f for f in saved("optimizer.pt", change) if f[1] != "scheduler/lr-mismatch"]
    one(found, "error", "optimizer/bad-hyperparameter", "optimizer.pt", f"param_groups[0].{name}", said)


@pytest.mark.parametrize(
    ("options", "severity", "name", "said"),
    [
        ({"amsgrad": torch.ones(())}, "error", "amsgrad", "amsgrad of parameter group 0 is 1.0, expected True, False or None"),
        ({"betas": (torch.zeros(2, 3), 0.99)}, "error", "betas[0]", "betas[0] of parameter group 0 is a float32 tensor of shape [2, 3], expected a number"),
        ({"initial_lr": math.inf}, "warning", "initial_lr", "initial_lr of parameter group 0 is inf, expected the learning rate that the schedule began with"),
        ({"initial_lr": torch.zeros(2, 3)}, "warning", "initial_lr", "initial_lr of parameter group 0 is a float32 tensor of shape [2, 3]"),
        ({"params": [float(n) for n in range(4)]}, None, "", ""),
        ({"fused": torch.zeros(3)}, "error", "fused", "fused of parameter group 0 is a float32 tensor of shape [3], expected True, False or None"),
        ({"capturable": "text"}, "error", "capturable", "capturable of parameter group 0 is 'text'"),
        ({"fused": True, "differentiable": True}, "error", "differentiable", "and fused is True too: torch does not allow both"),
        ({"fused": True, "foreach": True}, "error", "foreach", "and fused is True too"),
        ({"fused": True, "maximize": None}, "error", "maximize", "maximize of parameter group 0 is None, expected True or False, because fused is True"),
        ({"weight_decay": torch.zeros(3)}, "error", "weight_decay", "weight_decay of parameter group 0 is a float32 tensor of shape [3], expected a number"),
        ({"eps": [1e-8]}, "error", "eps", "eps of parameter group 0 is [1e-08], expected a number"),
        ({"capturable": True}, "warning", "capturable", "capturable of parameter group 0 is True, although it is False in other groups"),
        ({"maximize": True}, "warning", "maximize", "maximize of parameter group 0 is True, although it is False in other groups"),
        ({"foreach": ..., "maximize": False}, None, "", ""),
        ({"amsgrad": 0}, None, "", ""),
        ({"capturable": ...}, None, "", ""),
        ({"initial_lr": ...}, "warning", "initial_lr", "initial_lr of parameter group 0 is missing, although other groups have it"),
        ({"initial_lr": "0.1"}, "warning", "initial_lr", "initial_lr of parameter group 0 is '0.1', expected the learning rate"),
    ],
)  # fmt: skip
def test_flags_of_groups(options, severity, name, said, saved):
    def change(state):
        first, *others = state["param_groups"]
        group = {k: v for k, v in {**first, **options}.items() if v is not ...}
        return {**state, "param_groups": [group, *others]}

    found = [f for f in saved("optimizer.pt", change) if f[1] == "optimizer/bad-hyperparameter"]
    if severity is None:
        assert found == []
    elif name == "differentiable":
        assert [f[3].rpartition(".")[2] for f in found] == ["differentiable", "differentiable"]
        assert said in found[0][4]
    else:
        one(found, severity, "optimizer/bad-hyperparameter", "optimizer.pt", f"param_groups[0].{name}", said)


@pytest.mark.parametrize(
    "name", ["Adafactor", "SGD", "Adagrad", "RMSprop", "Rprop", "Adamax", "NAdam", "RAdam", "ASGD"]
)
def test_each_of_torchs_optimizers_is_taken_for_what_it_is(name, make_checkpoint, run_rule):
    run_rule(BadHyperparameter(), make_checkpoint(optimizer=name)).assert_passed()
    run_rule(IncompleteState(), make_checkpoint(optimizer=name)).assert_passed()


def test_two_kinds_in_one_optimizer_may_have_other_options(make_checkpoint, run_rule):
    ck = make_checkpoint()
    state = torch.load(ck / STATE, weights_only=False)
    group = state[OPT]["param_groups"][0]
    muon = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0, "use_muon": True, "params": group["params"][:5]}
    adam = {
        "lr": 0.02,
        "betas": (0.9, 0.95),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "use_muon": False,
        "params": group["params"][5:],
    }
    state[OPT]["param_groups"] = [muon, adam]
    torch.save(state, ck / STATE)
    run_rule(BadHyperparameter(), ck).assert_passed()
    del adam["eps"]
    state[OPT]["param_groups"] = [muon, adam, {**adam, "eps": 1e-8, "params": []}]
    torch.save(state, ck / STATE)
    said = "eps of parameter group 1 is missing, although other groups have it"
    run_rule(BadHyperparameter(), ck).assert_one(path=STATE, key=f"{OPT}.param_groups[1].eps", message=said)


def without(*params):
    return lambda state: {**state, "state": {k: v for k, v in state["state"].items() if k not in params}}


@pytest.mark.parametrize(("params", "said"), [(range(10, 21), "11 of 21 parameters (10, 11, 12, 13, 14 and 6 more) have no state"), ([1], "1 of 21 parameters (1) have no state, although the others have made 20 updates")])  # fmt: skip
def test_parameters_without_state(params, said, saved):
    found = saved("optimizer.pt", without(*params))
    one(found, "warning", "optimizer/incomplete-state", "optimizer.pt", f"state[{params[0]}]", said)


@pytest.mark.parametrize("unused", ["lm_head", "embed_tokens", "layers.1.", "layernorm", "mlp.up_proj"])
def test_what_was_never_used_as_a_whole_has_no_state(unused, make_checkpoint, run_rule):
    ck = make_checkpoint()
    state = torch.load(ck / STATE, weights_only=False)
    names = [n for n in named_parameters(ck) if unused in n]
    numbers = [i for i, n in enumerate(named_parameters(ck)) if n in names]
    assert numbers
    state[OPT] = without(*numbers)(state[OPT])
    torch.save(state, ck / STATE)
    run_rule(IncompleteState(), ck).assert_passed()


def named_parameters(ck):
    """As torch lists them: the numbers of the parameters go by their shapes here, which is what the rule can see."""
    from safetensors.torch import load_file

    weights = load_file(ck / "model.safetensors")
    moments = torch.load(ck / STATE, weights_only=False)[OPT]["state"]
    names = []
    for state in moments.values():
        name = next(n for n, w in weights.items() if n not in names and w.shape == state["exp_avg"].shape)
        names.append(name)
    return names


def test_a_state_that_is_none(saved):
    found = saved("optimizer.pt", lambda s: {**s, "state": {**s["state"], 3: None}})
    one(
        found,
        "error",
        "optimizer/incomplete-state",
        "optimizer.pt",
        "state[3]",
        "the state of parameter 3 is None, expected a dictionary",
    )


def test_a_state_without_step(saved):
    def change(state):
        del state["state"][3]["step"]
        return state

    found = saved("optimizer.pt", change)
    one(
        found,
        "error",
        "optimizer/incomplete-state",
        "optimizer.pt",
        "state[3]",
        "the state of parameter 3 has no step, although others have one",
    )


def test_an_entry_of_no_parameter_that_is_no_state(saved):
    def change(state):
        state["state"]["unheard_of"] = 1
        return state

    assert saved("optimizer.pt", change) == []


def test_moments_of_whole_numbers(saved):
    def change(state):
        state["state"][3]["exp_avg"] = state["state"][3]["exp_avg"].to(torch.int64)
        return state

    said = "exp_avg of parameter 3 is int64, although it is a floating-point tensor for other parameters: every fraction is lost"
    one(saved("optimizer.pt", change), "warning", "optimizer/moment-dtype", "optimizer.pt", "state[3].exp_avg", said)


@pytest.mark.parametrize(
    ("value", "key", "said"),
    [
        ({"step": -1, "epoch": 0.5}, "step", "step in custom_checkpoint_0.pkl is -1, which is not a count"),
        ({"step": 3, "epoch": math.nan}, "epoch", "epoch in custom_checkpoint_0.pkl is nan, which is not a count"),
        ({"step": 3.03}, "step", "step in custom_checkpoint_0.pkl is 3.03"),
        ({"step": [3]}, "step", "step in custom_checkpoint_0.pkl is [3]"),
        ({"completed_steps": 10**30}, "completed_steps", "which is not a count"),
        (None, None, "custom_checkpoint_0.pkl holds None instead of the state of a registered object"),
        ({"step": 3, "epoch": 0.5, "other": None}, None, None),
        ({"step": torch.tensor(3)}, None, None),
        ([1, 2], None, None),
    ],
)
def test_counters_that_a_script_registered(value, key, said, accelerated, tmp_path):
    def change(state):
        torch.save(value, tmp_path / "custom.pkl")
        return state

    accelerated("optimizer.bin", change)
    (save,) = {p.parent for p in tmp_path.rglob("random_states_0.pkl")}
    (tmp_path / "custom.pkl").rename(save / "custom_checkpoint_0.pkl")
    found = findings(save)
    if said is None:
        assert found == []
    else:
        one(found, "warning", "progress/counters-disagree", "custom_checkpoint_0.pkl", key, said)


def test_a_state_whose_step_has_another_name(saved):
    def change(state):
        state["state"][3]["steps"] = state["state"][3].pop("step")
        return state

    said = "the state of parameter 3 has no step, although others have one"
    one(saved("optimizer.pt", change), "error", "optimizer/incomplete-state", "optimizer.pt", "state[3]", said)


def test_no_state_with_a_step(saved):
    def change(state):
        for entry in state["state"].values():
            del entry["step"]
        return state

    found = saved("optimizer.pt", change)
    said = "has no step, but the optimizer reads it at every update, and the same for 20 more"
    one(found, "error", "optimizer/incomplete-state", "optimizer.pt", "state[0]", said)


def test_amsgrad_without_its_largest(saved):
    def change(state):
        state["param_groups"][0]["amsgrad"] = True
        return state

    found = saved("optimizer.pt", change)
    said = "the state of parameter 0 has no max_exp_avg_sq, although parameter group 0 has amsgrad=True"
    one(found, "error", "optimizer/incomplete-state", "optimizer.pt", "state[0]", said)


def test_amsgrad_is_fine(make_checkpoint, run_rule):
    run_rule(IncompleteState(), make_checkpoint(optimizer_options={"amsgrad": True})).assert_passed()


def test_groups_in_another_order(saved):
    def change(state):
        return {**state, "param_groups": state["param_groups"][::-1]}

    found = saved("optimizer.pt", change)
    said = "parameter 16 is at position 0 of the parameter groups, where torch writes parameter 0"
    one(found, "error", "optimizer/param-mismatch", "optimizer.pt", "param_groups[0].params[0]", said)


def test_moments_in_another_order(tmp_path, run_rule):
    model = torch.nn.Sequential(*(torch.nn.Linear(i + 2, i + 3) for i in range(5)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    whole = {"epoch": 1, "model_state_dict": model.state_dict(), OPT: optimizer.state_dict()}
    run_rule(ParamMismatch(), save(tmp_path / "a", whole)).assert_passed()
    states = whole[OPT]["state"]
    states[2], states[3] = states[3], states[2]
    run_rule(ParamMismatch(), save(tmp_path / "b", whole)).assert_one(
        path="checkpoint.pt",
        key=f"{OPT}.state[2]",
        message="the moments have the shapes of the weights, but in another order",
    )


def save(path, state):
    path.mkdir()
    torch.save(state, path / "checkpoint.pt")
    return path


def test_modules_may_be_listed_in_any_order(tmp_path, run_rule):
    model = torch.nn.Sequential(*(torch.nn.Linear(i + 2, i + 3) for i in range(5)))
    optimizer = torch.optim.AdamW([p for m in reversed(model) for p in m.parameters()])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    whole = {"epoch": 1, "model_state_dict": model.state_dict(), OPT: optimizer.state_dict()}
    run_rule(ParamMismatch(), save(tmp_path / "a", whole)).assert_passed()


def test_one_ranks_flat_shard(saved):
    def change(state):
        for number, entry in state["state"].items():
            entry |= {n: torch.zeros(7 if number < 9 else 0) for n in ("exp_avg", "exp_avg_sq")}
        return state

    found = saved("optimizer.pt", change)
    said = "all moments are flat and have 63 elements, but the weights have"
    one(found, "error", "optimizer/param-mismatch", "optimizer.pt", "state[0]", said)

"""What lies inside of the files of a Trainer's, Accelerate's or Lightning's save: each damaged as cases from runs were."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch

from ckpt_rules import verify
from ckpt_rules_training.optimizer_holes import IncompleteState
from ckpt_rules_training.optimizer_params import ParamMismatch
from ckpt_rules_training.optimizer_values import BadHyperparameter
from ckpt_rules_training.scheduler_base import BaseLrMismatch
from ckpt_rules_training.scheduler_fields import BadSchedulerField
from ckpt_rules_training.scheduler_steps import StepMismatch

STATE, OPT = "training_state.pth", "optimizer_state_dict"
STEPS = 20


def random_states(*names):
    values = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 - as the trainers do
    return dict(zip(names, values, strict=True))


@pytest.fixture
def saved(make_checkpoint, tmp_path):
    """`saved("optimizer.pt", change)`: findings on a Trainer's save whose one file was changed; None leaves it as it is."""

    def build(name=None, change=None):
        ck = make_checkpoint(scheduler="lambda")
        state = torch.load(ck / STATE, weights_only=False)
        out = tmp_path / f"checkpoint-{STEPS}"
        ck.path.rename(out)
        (out / STATE).unlink()
        files = {
            "optimizer.pt": state[OPT],
            "scheduler.pt": state["scheduler_state_dict"],
            "rng_state.pth": random_states("python", "numpy", "cpu"),
        }
        for file, whole in files.items():
            value = change(whole) if file == name else whole
            if value is not ...:
                torch.save(value, out / file)
        told = {"global_step": STEPS, "epoch": 2.0, "max_steps": 100, "num_train_epochs": 10, "log_history": []}
        (out / "trainer_state.json").write_text(json.dumps({**told, "train_batch_size": 2, "save_steps": 10}))
        return findings(out)

    return build


@pytest.fixture
def accelerated(make_checkpoint, tmp_path):
    """The same of a save by Accelerate."""

    def build(name=None, change=None):
        ck = make_checkpoint(scheduler="lambda")
        state = torch.load(ck / STATE, weights_only=False)
        (ck / STATE).unlink()
        files = {
            "optimizer.bin": state[OPT],
            "scheduler.bin": state["scheduler_state_dict"],
            "random_states_0.pkl": {
                "step": 0,
                **random_states("random_state", "numpy_random_seed", "torch_manual_seed"),
            },
        }
        for file, value in files.items():
            torch.save(change(value) if file == name else value, ck / file)
        return findings(ck.path)

    return build


def findings(path):
    report = verify(path)
    assert not [o.crash.traceback for o in report.outcomes if o.crash]
    return [
        (f.severity.value, f.rule, f.place.path, f.place.key, f.message)
        for f in report.findings
        if f.severity.value != "info"
    ]


def changed(**changes):
    return lambda value: {k: v for k, v in {**value, **changes}.items() if v is not ...}


def one(found, *wanted):
    assert len(found) == 1, found
    assert found[0][:4] == wanted[:4]
    assert wanted[4] in found[0][4]


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
    ("value", "said"),
    [
        ({"state": {}, "param_groups": [{"params": [0]}]}, "scheduler.pt looks like the state_dict of an optimizer"),
        ({"python": 1, "cpu": torch.get_rng_state()}, "looks like the states of random-number generators"),
        ({"scale": 1.0, "growth_factor": 2.0}, "looks like the state_dict of a gradient scaler"),
        ({"w": torch.zeros(2)}, "looks like a model's weights, where the state_dict of a scheduler belongs"),
        (None, "scheduler.pt is None"),
        ([], "scheduler.pt is a list of 0"),
        ({}, "scheduler.pt is an empty dictionary"),
    ],
)
def test_a_scheduler_file_with_something_else(value, said, saved):
    one(saved("scheduler.pt", lambda _: value), "error", "scheduler/missing", "scheduler.pt", None, said)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"cpu": torch.zeros(5055, dtype=torch.uint8)}, "cpu", "'cpu' is a uint8 tensor of shape [5055], where a uint8 tensor of 5,056 bytes"),
        ({"cpu": torch.zeros(5056)}, "cpu", "'cpu' is a float32 tensor of shape [5056]"),
        ({"cpu": None}, "cpu", "'cpu' is None"),
        ({"python": (3, tuple(range(624)), None)}, "python", "'python' holds 624 numbers, where the state of python's generator has 625"),
        ({"python": (3, 4)}, "python", "'python' has 2 parts"),
        ({"python": 7}, "python", "'python' is a number"),
        ({"numpy": ("MT19937", np.zeros(600, "u4"), 3, 0, 0.0)}, "numpy", "'numpy' holds 600 numbers, where the state of numpy's generator has 624"),
        ({"numpy": ("PCG64",)}, "numpy", "'numpy' does not begin with 'MT19937'"),
        ({"numpy": ()}, "numpy", "'numpy' does not begin with 'MT19937'"),
        ({"python": (6, (0,) * 624 + (1,), None)}, "python", "'python' begins with 6, where the state of python's generator begins with its version, 3"),
        ({"python": ("x", (0,) * 624 + (1,), None)}, "python", "'python' begins with 'x'"),
        ({"python": (3, (0,) * 624 + (625,), None)}, "python", "'python' says that number 625 of 624 is next"),
        ({"python": (3, (0,) * 623 + (1 << 32, 1), None)}, "python", "holds something other than whole numbers of 32 bits"),
        ({"python": (3, (0,) * 624 + (1,), "x")}, "python", "'python' ends with 'x', where python's generator keeps None or a float"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 0)}, "numpy", "'numpy' ends before the last number of the state"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 10**30, 0, 0.0)}, "numpy", f"'numpy' says that number {10**30} of 624 is next"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), None, 0, 0.0)}, "numpy", "'numpy' says that number None of 624 is next"),
        ({"numpy": ("MT19937", torch.ones(2, 3), 3, 0, 0.0)}, "numpy", "'numpy' holds a float32 tensor of shape [2, 3], where the 624 numbers of numpy's generator belong"),
        ({"numpy": ("MT19937", None, 3, 0, 0.0)}, "numpy", "'numpy' holds None, where the 624 numbers of numpy's generator belong"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 10**30, 0.0)}, "numpy", "where numpy's generator keeps 0 or 1"),
        ({"cpu": torch.zeros(5056, dtype=torch.uint8)}, "cpu", "'cpu' begins with the numbers 0, 0 and 0 after the seed, which torch refuses"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, {}, 0.0)}, "numpy", "'numpy' has a dictionary where the state of numpy's generator ends with two numbers"),
        ({"numpy": ("MT19937", np.ones(624, "u4"), 3, 0, None)}, "numpy", "'numpy' has None where the state of numpy's generator ends with two numbers"),
        ({"cuda": torch.zeros(3, dtype=torch.uint8)}, "cuda", "'cuda' is a uint8 tensor of shape [3], where a uint8 tensor of 16 bytes or more"),
    ],
)  # fmt: skip
def test_random_states_of_the_trainer(change, key, said, saved):
    one(saved("rng_state.pth", changed(**change)), "error", "rng/bad-state", "rng_state.pth", key, said)


def test_random_state_files_of_the_trainer(saved):
    found = saved("rng_state.pth", lambda _: {})
    one(found, "error", "rng/bad-state", "rng_state.pth", None, "rng_state.pth holds no state of any generator")


def test_what_torch_refuses_is_refused_here():
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        torch.set_rng_state(torch.zeros(5056, dtype=torch.uint8))


def test_a_position_that_is_written_as_a_float_does_no_harm(saved):
    state = ("MT19937", np.ones(624, "u4"), 6.0, 0, 0.0)
    np.random.RandomState().set_state(state)
    assert saved("rng_state.pth", changed(numpy=state)) == []


def test_a_dimension_more_does_no_harm(saved):
    assert saved("rng_state.pth", changed(cpu=torch.get_rng_state().unsqueeze(0))) == []


@pytest.mark.parametrize("legacy", [False, True, None])
def test_spellings_of_numpys_state_are_fine(legacy, saved):
    form = ("MT19937", [1] * 624, 3) if legacy is None else np.random.get_state(legacy=legacy)  # noqa: NPY002
    assert [f for f in saved("rng_state.pth", changed(numpy=form)) if f[1] == "rng/bad-state"] == []


def test_the_trainer_always_writes_random_states(saved):
    found = saved("rng_state.pth", lambda _: ...)
    one(
        found,
        "warning",
        "rng/missing",
        "rng_state.pth",
        None,
        "there is no rng_state.pth: shuffling and dropout differ",
    )


def test_one_generator_is_missing(saved):
    found = saved("rng_state.pth", changed(numpy=...))
    one(
        found,
        "warning",
        "rng/bad-state",
        "rng_state.pth",
        "numpy",
        "'numpy' is missing, where the state of numpy's generator",
    )


def test_another_files_content_in_a_random_state_file(saved):
    found = saved("rng_state.pth", lambda _: {"base_lrs": [0.1], "last_epoch": 3})
    one(
        found, "error", "rng/bad-state", "rng_state.pth", None, "looks like the state_dict of a learning-rate scheduler"
    )


def test_accelerate_only_logs_random_states(accelerated):
    name = "random_states_0.pkl"
    one(
        accelerated(name, lambda _: {}),
        "warning",
        "rng/bad-state",
        name,
        None,
        "holds no state of any generator; the trainer only logs",
    )
    found = accelerated(name, lambda _: {"T_max": 20, "base_lrs": [0.01], "last_epoch": 6, "_step_count": 7})
    one(found, "warning", "rng/bad-state", name, None, "looks like the state_dict of a learning-rate scheduler")


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


def test_a_scheduler_without_a_field_that_a_new_one_has(make_checkpoint, run_rule):
    ck = make_checkpoint(scheduler="cosine")
    state = torch.load(ck / STATE, weights_only=False)
    del state["scheduler_state_dict"]["eta_min"]
    torch.save(state, ck / STATE)
    assert run_rule(BadSchedulerField(), ck).findings == ()


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


@pytest.mark.parametrize(
    ("change", "rule", "key", "said"),
    [
        ({"last_epoch": ...}, "scheduler/step-mismatch", "last_epoch", "last_epoch of the scheduler (LambdaLR) is missing: it starts again from its first step"),
        ({"last_epoch": None}, "scheduler/step-mismatch", "last_epoch", "last_epoch of the scheduler (LambdaLR) is None"),
        ({"base_lrs": [math.nan, 0.1]}, "scheduler/base-lr-mismatch", "base_lrs[0]", "base_lrs[0] of the scheduler is nan, expected a finite number"),
        ({"base_lrs": [None, 0.1]}, "scheduler/base-lr-mismatch", "base_lrs[0]", "is None, expected a finite number"),
        ({"base_lrs": 0.1}, "scheduler/bad-field", "base_lrs", "base_lrs of the scheduler (LambdaLR) is 0.1, expected a list of learning rates"),
        ({"lr_lambdas": "text"}, "scheduler/bad-field", "lr_lambdas", "lr_lambdas of the scheduler (LambdaLR) is 'text', expected a list"),
        ({"lr_lambdas": [None] * 4}, "scheduler/bad-field", "lr_lambdas", "lr_lambdas of the scheduler (LambdaLR) holds 4 entries for 2 parameter groups: loading fails with IndexError"),
        ({"_step_count": None}, "scheduler/bad-field", "_step_count", "_step_count of the scheduler (LambdaLR) is None, expected a number"),
        ({"lr_lambdas": [None, 3]}, "scheduler/bad-field", "lr_lambdas[1]", "lr_lambdas[1] of the scheduler (LambdaLR) is 3, expected None or a dictionary"),
        ({"lr_lambdas": [torch.ones(()), None]}, "scheduler/bad-field", "lr_lambdas[0]", "lr_lambdas[0] of the scheduler (LambdaLR) is"),
        ({"_step_count": torch.ones(2, 3)}, "scheduler/bad-field", "_step_count", "_step_count of the scheduler (LambdaLR) is a tensor, expected a number"),
        ({"_is_initial": torch.ones(())}, "scheduler/bad-field", "_is_initial", "_is_initial of the scheduler (LambdaLR) is a tensor, expected True or False"),
        ({"base_lrs": []}, "scheduler/base-lr-mismatch", "base_lrs", "the scheduler keeps 0 first learning rates (base_lrs), but has set 2 rates"),
    ],
)  # fmt: skip
def test_what_a_scheduler_keeps(change, rule, key, said, saved):
    one(saved("scheduler.pt", changed(**change)), "error", rule, "scheduler.pt", key, said)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"_last_lr": ...}, "_last_lr", "_last_lr of the scheduler (LambdaLR) is missing, although every step sets it"),
        (
            {"_last_lr": [None, 0.1]},
            "_last_lr[0]",
            "_last_lr[0] of the scheduler (LambdaLR) is None, expected a number",
        ),
        ({"_last_lr": [math.inf, 0.1]}, "_last_lr[0]", "expected a finite number"),
        (
            {"_last_lr": []},
            "_last_lr",
            "_last_lr of the scheduler (LambdaLR) is [], expected one learning rate for each group",
        ),
        (
            {"lr_lambdas": ..., "lr_lambdasx": []},
            None,
            "only the fields that all schedulers share, none of a specific class",
        ),
        ({"lr_lambdas": ..., "base_lrs": ..., "_step_count": ...}, None, "none of a specific class"),
        (
            {"lr_lambdas": ...},
            None,
            "only the fields that all schedulers share, none of a specific class: if it is a LambdaLR",
        ),
    ],
)
def test_what_a_person_must_judge_of_a_scheduler(change, key, said, saved):
    found = [f for f in saved("scheduler.pt", changed(**change)) if f[1] != "scheduler/lr-mismatch"]
    one(found, "warning", "scheduler/bad-field", "scheduler.pt", key, said)


@pytest.mark.parametrize(
    ("change", "severity", "said"),
    [
        ({}, None, ""),
        ({"T_max": 0}, "error", "T_max of the scheduler (CosineAnnealingLR) is 0, and the schedule divides by it"),
        ({"T_max": [7]}, "error", "T_max of the scheduler (CosineAnnealingLR) is [7], expected a number"),
        (
            {"eta_min": math.nan},
            "error",
            "eta_min of the scheduler (CosineAnnealingLR) is nan, expected a finite number",
        ),
        ({"eta_min": -1}, "warning", "eta_min of the scheduler (CosineAnnealingLR) is -1, so the learning rates"),
        (
            {"eta_min": 5},
            "warning",
            "eta_min of the scheduler (CosineAnnealingLR) is 5, which is above every learning rate that",
        ),
        (
            {"_is_initial": True},
            "warning",
            "_is_initial of the scheduler (CosineAnnealingLR) is True, which is only true while a scheduler is being built",
        ),
        ({"T_max": -7}, "warning", "T_max of the scheduler (CosineAnnealingLR) is -7, but it counts steps"),
        ({"T_max": [7], "own_field": 1}, None, ""),
    ],
)
def test_what_a_cosine_is_computed_from(change, severity, said, make_checkpoint, run_rule):
    ck = make_checkpoint(scheduler="cosine")
    state = torch.load(ck / STATE, weights_only=False)
    state["scheduler_state_dict"] |= change
    torch.save(state, ck / STATE)
    found = run_rule(BadSchedulerField(), ck).findings
    assert [(f.severity.value, said in f.message) for f in found] == ([(severity, True)] if severity else [])


def test_other_first_rates(saved):
    found = saved("scheduler.pt", changed(base_lrs=[7.0, 7.0]))
    said = "the scheduler's first learning rate of parameter group 0 is 7, but the optimizer's (initial_lr) is 0.0"
    one(found, "warning", "scheduler/base-lr-mismatch", "scheduler.pt", "base_lrs[0]", said)


@pytest.mark.parametrize("kind", ["CyclicLR", "OneCycleLR", "SequentialLR", "LinearLR", "CosineAnnealingWarmRestarts"])
def test_first_rates_of_torchs_schedulers(kind, kit, tmp_path, run_rule):
    schedulers = torch.optim.lr_scheduler
    made = {
        "CyclicLR": lambda o: schedulers.CyclicLR(o, 0.01, 0.1, cycle_momentum=False),
        "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=100),
        "SequentialLR": lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o), schedulers.CosineAnnealingLR(o, 50)], [5]
        ),
        "LinearLR": schedulers.LinearLR,
        "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 5),
    }[kind]
    ck = kit.save_canonical(kit.train(scheduler=made), tmp_path / "ck")
    run_rule(BaseLrMismatch(), ck).assert_passed()
    run_rule(StepMismatch(), ck).assert_passed()


def test_a_schedule_in_another_order_than_the_groups(kit, tmp_path, run_rule):
    def groups(model):
        first, *others = model.parameters()
        return [{"params": [first], "lr": 0.1}, {"params": others, "lr": 0.01}]

    run = kit.train(scheduler=kit.cosine, params=groups)
    ck = kit.save_canonical(run, tmp_path / "ck")
    run_rule(BaseLrMismatch(), ck).assert_passed()
    run.scheduler.base_lrs.reverse()
    ck = kit.save_canonical(run, tmp_path / "turned")
    run_rule(BaseLrMismatch(), ck).assert_one(
        severity="warning", key="scheduler_state_dict.base_lrs[0]", message="the same rates are in a different order"
    )


def test_a_scheduler_that_is_nowhere(kit, tmp_path):
    run = kit.train(scheduler=kit.cosine)
    whole = {"epoch": 2, "model_state_dict": run.model.state_dict(), OPT: run.optimizer.state_dict()}
    found = findings(kit.save_one_file(tmp_path / "ck", whole))
    one(found, "warning", "scheduler/missing", "checkpoint.pt", "scheduler_state_dict", "there is no scheduler state")
    run = kit.train()
    whole[OPT] = run.optimizer.state_dict()
    assert findings(kit.save_one_file(tmp_path / "never", whole)) == []

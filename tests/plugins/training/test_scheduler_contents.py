"""What lies in scheduler files: each damaged as cases from runs were."""

from __future__ import annotations

import math

import pytest
import torch

from ckpt_rules_training.scheduler_base import BaseLrMismatch
from ckpt_rules_training.scheduler_fields import BadSchedulerField
from ckpt_rules_training.scheduler_steps import StepMismatch
from tests.plugins.training.contents import OPT, STATE, changed, findings, one


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


def test_a_scheduler_without_a_field_that_a_new_one_has(make_checkpoint, run_rule):
    ck = make_checkpoint(scheduler="cosine")
    state = torch.load(ck / STATE, weights_only=False)
    del state["scheduler_state_dict"]["eta_min"]
    torch.save(state, ck / STATE)
    assert run_rule(BadSchedulerField(), ck).findings == ()


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

"""progress/…: impossible counters, contradictions, names that lie, and the planned end."""

from __future__ import annotations

import math

import pytest
import torch

from ckpt_rules_training.progress_counters import CountersDisagree, Finished
from ckpt_rules_training.progress_invalid import InvalidProgress
from ckpt_rules_training.progress_name import NameMismatch

STATE = "training_state.pth"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epoch", -1, "epoch is -1, which is negative"),
        ("epoch", 1.5, "epoch is 1.5, which is not a whole number"),
        ("epoch", True, "epoch is True, which is not a number"),
        ("epoch", "two", "epoch is 'two', which is not a number"),
        ("epoch", math.nan, "epoch is nan, which is not finite"),
        ("epoch", {"now": 2}, "epoch is {'now': 2}, which is not a number"),
        ("epoch", torch.zeros(2, 3), "epoch is a float32 tensor of shape [2, 3], which is not a number"),
        ("epoch", 10**400, "epoch is an integer of 1,329 bits, which is absurdly large: it does not fit in 63 bits"),
        ("step", -3, "step is -3, which is negative"),
        ("step", math.inf, "step is inf, which is not finite"),
        ("step", torch.tensor(-3.0), "step is -3.0, which is negative"),
        ("step", 10, "step is 10, but an epoch has only 10 batches (0 to 9)"),
        ("step", 4310, "step is 4310, but an epoch has only 10 batches (0 to 9)"),
        ("step", 2**70, "step is 1180591620717411303424, which is absurdly large: it does not fit in 63 bits"),
        ("total_batches", 0, "total_batches is 0, where at least 1 is needed"),
        ("total_batches", -10, "total_batches is -10, which is negative"),
        ("global_step", 2.5, "global_step is 2.5, which is not a whole number"),
        ("global_step", 0, "global_step is 0, although the optimizer has made 20 updates"),
        ("epoch", 0, "epoch is 0, and step 0, although the optimizer has made 20 updates"),
        ("gradient_accumulation_steps", 0, "gradient_accumulation_steps is 0, where at least 1 is needed"),
        ("gradient_accumulation_steps", -2, "gradient_accumulation_steps is -2, which is negative"),
        ("num_epochs", math.nan, "num_epochs is nan, which is not a plan: a positive number is expected, or -1 for no limit"),
    ],
)  # fmt: skip
def test_each_impossible_counter(key, value, message, make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, key, value)
    result = run_rule(InvalidProgress(), ck)
    result.assert_one(path=STATE, key=key, message=message, severity="error")
    assert result.findings[0].message == message


def test_every_impossible_counter_is_reported_once(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, "epoch", -1).set_key(STATE, "step", 1.5).set_key(STATE, "global_step", "x")
    result = run_rule(InvalidProgress(), ck)
    assert [f.place.key for f in result.findings] == ["epoch", "step", "global_step"]


def test_a_counter_inside_a_group_is_named_with_its_path(kit, tmp_path, run_rule):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "progress": {"epoch": -2}}
    path = kit.save_one_file(tmp_path / "ck", state)
    run_rule(InvalidProgress(), path).assert_one(path="checkpoint.pt", key="progress.epoch", data={"value": -2})


def test_nothing_else_is_computed_from_an_impossible_counter(make_checkpoint, kit):
    ck = make_checkpoint().set_key(STATE, "step", -3)
    report = kit.verify(ck.path)
    assert [f.rule for f in report.findings] == ["progress/invalid"]
    blocked = [o for o in report.outcomes if o.blocked_by]
    assert {o.rule for o in blocked} >= {"optimizer/step-drift", "scheduler/step-mismatch", "progress/name-mismatch"}
    assert {o.blocked_by for o in blocked} == {STATE}


@pytest.mark.parametrize("value", [2.0, torch.tensor(2), torch.tensor(2.0)], ids=repr)
def test_counters_of_any_kind_of_number_pass(value, make_checkpoint, run_rule):
    run_rule(InvalidProgress(), make_checkpoint().set_key(STATE, "epoch", value)).assert_passed()


@pytest.mark.parametrize("value", [-1, 0, 3.5, math.inf], ids=repr)
def test_plans_may_be_open_ended_or_fractional(value, make_checkpoint, run_rule):
    run_rule(InvalidProgress(), make_checkpoint(extra={"num_epochs": value})).assert_passed()


def test_invalid_needs_a_state(make_checkpoint, run_rule):
    run_rule(InvalidProgress(), make_checkpoint().remove(STATE)).assert_skipped("no training state")


@pytest.mark.parametrize(("step", "epoch"), [(17, 2), (500, 2), (25, 7)])
def test_global_step_contradicts_epoch_and_step(step, epoch, make_checkpoint, run_rule):
    ck = make_checkpoint(epoch=epoch, global_step=step)
    batches = epoch * 10
    run_rule(CountersDisagree(), ck).assert_one(
        path=STATE,
        key="global_step",
        severity="error",
        message=f"global_step is {step}, but epoch, step and batches per epoch add up to {batches} batches, "
        f"and the optimizer has made {batches} updates",
        data={"global_step": step, "batches": batches, "optimizer_updates": batches},
    )


def test_both_numbers_are_named_where_batches_are_accumulated(make_checkpoint, run_rule):
    ck = make_checkpoint(accumulation=4, total_batches=100, global_step=130)
    run_rule(CountersDisagree(), ck).assert_one(message="add up to 200 batches or 50 optimizer updates")


@pytest.mark.parametrize("step", [19, 20, 21, 9, 10, 11])
def test_global_step_may_count_batches_or_updates_give_or_take_one(step, make_checkpoint, run_rule):
    run_rule(CountersDisagree(), make_checkpoint(accumulation=2, global_step=step)).assert_passed()


def test_one_counter_can_not_disagree(make_checkpoint, run_rule):
    run_rule(CountersDisagree(), make_checkpoint(global_step=False)).assert_skipped("not two counters")


def test_a_global_step_on_the_optimizers_side_is_left_to_step_drift(make_checkpoint, kit):
    ck = make_checkpoint(epoch=20, updates=77, global_step=77)
    assert [f.rule for f in kit.verify(ck.path).findings] == ["optimizer/step-drift"]


@pytest.mark.parametrize(
    ("name", "said", "inside"),
    [
        ("step-500", "step 500", [20]),
        ("checkpoint-500", "step or epoch 500", [2, 20]),
        ("step_00500", "step 500", [20]),
        ("iter_0000500", "step 500", [20]),
        ("run7-global_step500", "step 500", [20]),
        ("epoch_5", "epoch 5", [2]),
        ("epoch=5-step=20", "epoch 5", [2]),
        ("epoch=2-step=500", "step 500", [20]),
    ],
)
def test_the_directory_says_something_else(name, said, inside, make_checkpoint, run_rule):
    finding = run_rule(NameMismatch(), make_checkpoint(name)).assert_one(
        path=".", message=f"'{name}' says {said}", severity="warning"
    )
    assert finding.data["recorded"] == inside


def test_the_state_file_says_something_else(kit, tmp_path, run_rule):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "iter_num": run.updates}
    path = kit.save_one_file(tmp_path / "out", state, "ckpt_500.pt")
    run_rule(NameMismatch(), path).assert_one(path="ckpt_500.pt", data={"named": 500, "recorded": [14]})


def test_a_name_may_be_that_of_a_step_in_the_epoch(make_checkpoint, run_rule):
    run_rule(NameMismatch(), make_checkpoint("step-500", epoch=3, step=500, total_batches=1270)).assert_passed()
    run_rule(NameMismatch(), make_checkpoint("step-3040", epoch=3, step=500, total_batches=1270)).assert_passed()
    run_rule(NameMismatch(), make_checkpoint("step-501x", epoch=3, step=500, total_batches=1270)).assert_passed()


@pytest.mark.parametrize(
    ("extra", "key", "message"),
    [
        ({"num_epochs": 2}, "num_epochs", "nothing is left to train: epoch 2 of 2 is complete"),
        ({"max_steps": 20}, "max_steps", "nothing is left to train: step 20 of 20 is complete"),
        ({"config": {"max_iters": 15}}, "max_iters", "nothing is left to train: step 20 of 15 is complete"),
    ],
)
def test_the_planned_end_is_reached(extra, key, message, make_checkpoint, run_rule):
    run_rule(Finished(), make_checkpoint(extra=extra)).assert_one(path=STATE, key=key, message=message, severity="info")


def test_the_planned_end_is_not_reached(make_checkpoint, run_rule):
    run_rule(Finished(), make_checkpoint(extra={"num_epochs": 3, "max_steps": -1})).assert_passed()
    run_rule(Finished(), make_checkpoint(step=5, epoch=3, extra={"num_epochs": 3})).assert_passed()
    run_rule(Finished(), make_checkpoint()).assert_skipped("no planned end")

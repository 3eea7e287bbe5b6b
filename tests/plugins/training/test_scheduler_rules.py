"""scheduler/…, scaler/… and rng/…."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler

from ckpt_rules_training.missing_parts import RngMissing, ScalerMissing, SchedulerMissing
from ckpt_rules_training.scaler_collapsed import CollapsedScaler
from ckpt_rules_training.scheduler_lr import Exhausted, LrMismatch
from ckpt_rules_training.scheduler_steps import StepMismatch

STATE = "training_state.pth"
OPT = "optimizer_state_dict"
SCHED = "scheduler_state_dict"
SCALER = "scaler_state_dict"


def test_scheduler_missing(make_checkpoint, run_rule, kit):
    ck = make_checkpoint().drop_key(STATE, SCHED)
    run_rule(SchedulerMissing(), ck).assert_one(
        path=STATE, key=SCHED, severity="warning",
        message="there is no scheduler state: without it the learning-rate schedule restarts",
    )  # fmt: skip
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scheduler/missing"]


def test_scheduler_missing_where_none_was_ever_attached(make_checkpoint, run_rule):
    run_rule(SchedulerMissing(), make_checkpoint(scheduler=None)).assert_one(severity="info")
    run_rule(SchedulerMissing(), make_checkpoint(scheduler=None, extra={SCHED: None})).assert_passed()


def test_scheduler_present(make_checkpoint, run_rule):
    for scheduler in ("cosine", "plateau", "step"):
        run_rule(SchedulerMissing(), make_checkpoint(scheduler=scheduler)).assert_passed()


@pytest.mark.parametrize("value", ["cosine", 3, [1, 2], torch.zeros(2)], ids=repr)
def test_something_else_in_the_schedulers_place(value, make_checkpoint, run_rule, kit):
    ck = make_checkpoint().set_key(STATE, SCHED, value)
    run_rule(SchedulerMissing(), ck).assert_one(
        path=STATE, key=SCHED, severity="error", message="where the state_dict of a scheduler belongs"
    )
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scheduler/missing"]


@pytest.mark.parametrize("last", [0, 5, 17, 23, 999])
def test_step_mismatch(last, make_checkpoint, run_rule, kit):
    ck = make_checkpoint(accumulation=2, total_batches=20).set_key(STATE, f"{SCHED}.last_epoch", last)
    ck.set_key(STATE, f"{SCHED}._step_count", last + 1)
    finding = run_rule(StepMismatch(), ck).assert_one(path=STATE, key=f"{SCHED}.last_epoch", severity="warning")
    assert finding.message == (
        f"the scheduler is at step {last}; expected 20 (optimizer updates = global steps) or 40 (batches) or 2 (epochs)"
    )
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scheduler/step-mismatch"]


@pytest.mark.parametrize("last", [19, 21, 40, 1, 2, 3])
def test_a_scheduler_may_count_updates_batches_or_epochs_give_or_take_one(last, make_checkpoint, run_rule):
    ck = make_checkpoint(accumulation=2, total_batches=20).set_key(STATE, f"{SCHED}.last_epoch", last)
    ck.set_key(STATE, f"{SCHED}._step_count", last + 1)
    run_rule(StepMismatch(), ck).assert_passed()


def test_step_mismatch_tolerance(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{SCHED}.last_epoch", 17)
    run_rule(StepMismatch(), ck).assert_one(data={"last_epoch": 17})
    run_rule(StepMismatch(tolerance=3), ck).assert_passed()


@pytest.mark.parametrize(
    ("count", "wrong"),
    [(20, False), (22, False), (23, True), (0, True), (-4, True), (7, False), ("x", True)],
)
def test_step_count(count, wrong, make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{SCHED}._step_count", count)
    result = run_rule(StepMismatch(), ck)
    if wrong:
        result.assert_one(
            key=f"{SCHED}._step_count", message=f"_step_count of the scheduler is {count!r}, but last_epoch is 20"
        )
    else:
        result.assert_passed()


@pytest.mark.parametrize("last", [-1, 2.5, math.nan, "x", True])
def test_last_epoch_is_no_count(last, make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{SCHED}.last_epoch", last)
    run_rule(StepMismatch(), ck).assert_one(
        key=f"{SCHED}.last_epoch", message=f"is {last!r}, which is not a count of steps"
    )


def test_schedulers_that_count_other_things_are_skipped(make_checkpoint, run_rule):
    run_rule(StepMismatch(), make_checkpoint(scheduler="plateau")).assert_skipped("counts evaluations")
    run_rule(StepMismatch(), make_checkpoint(scheduler=None)).assert_skipped("there is no scheduler state")
    ck = make_checkpoint().set_key(STATE, SCHED, {"num_steps": 20})
    run_rule(StepMismatch(), ck).assert_skipped("keeps no last_epoch")


def test_schedulers_of_schedulers(kit, tmp_path, run_rule):
    def sequence(opt):
        return lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt), lr_scheduler.ExponentialLR(opt, 0.9)], [4])

    def chain(opt):
        return lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(opt), lr_scheduler.ExponentialLR(opt, 0.9)])

    for name, scheduler, key in (("a", sequence, "last_epoch"), ("b", chain, "_schedulers.0.last_epoch")):
        path = kit.save_canonical(kit.train(scheduler=scheduler), tmp_path / name)
        run_rule(StepMismatch(), path).assert_passed()
        state = torch.load(path / STATE)
        (state[SCHED] if key == "last_epoch" else state[SCHED]["_schedulers"][0])["last_epoch"] = 9
        torch.save(state, path / STATE)
        run_rule(StepMismatch(), path).assert_one(data={"last_epoch": 9})


def test_a_scheduler_reset_where_only_epochs_are_recorded(kit, tmp_path, run_rule):
    run = kit.train(
        scheduler=lambda o: lr_scheduler.StepLR(o, 3),
        per="epoch",
        epochs=5,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    state = {
        "state_dict": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "epoch": 5,
        "scheduler": run.scheduler.state_dict(),
    }
    run_rule(StepMismatch(), kit.save_one_file(tmp_path / "ok", state)).assert_passed()
    state["scheduler"]["last_epoch"] = 35
    run_rule(StepMismatch(), kit.save_one_file(tmp_path / "batches", state)).assert_passed()
    state["scheduler"]["last_epoch"] = 0
    run_rule(StepMismatch(), kit.save_one_file(tmp_path / "reset", state)).assert_one(
        path="checkpoint.pt",
        key="scheduler.last_epoch",
        message="the scheduler is at step 0; expected 4 to 5 (epochs)",
    )


def test_lr_mismatch(make_checkpoint, run_rule, kit):
    ck = make_checkpoint().set_key(STATE, f"{OPT}.param_groups.1.lr", 0.5)
    finding = run_rule(LrMismatch(), ck).assert_one(
        path=STATE, key=f"{OPT}.param_groups[1].lr", severity="warning", data={"group": 1, "optimizer": 0.5}
    )
    assert finding.message.startswith("the scheduler set the learning rate of parameter group 1 to 0.0009")
    assert finding.message.endswith("the optimizer has 0.5")
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scheduler/lr-mismatch"]


def test_lr_mismatch_tolerance(make_checkpoint, run_rule):
    ck = make_checkpoint()
    lr = torch.load(ck / STATE)[OPT]["param_groups"][0]["lr"]
    ck.set_key(STATE, f"{OPT}.param_groups.0.lr", lr * (1 + 1e-4))
    run_rule(LrMismatch(), ck).assert_one()
    run_rule(LrMismatch(tolerance=1e-3), ck).assert_passed()


def test_another_number_of_groups(make_checkpoint, run_rule):
    ck = make_checkpoint().set_key(STATE, f"{SCHED}._last_lr", [0.1, 0.1, 0.1])
    run_rule(LrMismatch(), ck).assert_one(
        key=f"{SCHED}._last_lr", message="the scheduler sets 3 learning rates, but the optimizer has 2 parameter groups"
    )


def test_lr_agrees(make_checkpoint, run_rule, kit, tmp_path):
    run_rule(LrMismatch(), make_checkpoint()).assert_passed()
    run = kit.train(scheduler=kit.cosine, optimizer=lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1)))
    run_rule(LrMismatch(), kit.save_canonical(run, tmp_path / "ck")).assert_passed()
    run_rule(LrMismatch(), make_checkpoint(scheduler="plateau")).assert_skipped("does not record")


def test_exhausted(make_checkpoint, run_rule, kit):
    ck = make_checkpoint(planned_updates=20)
    run_rule(Exhausted(), ck).assert_one(
        path=STATE, key=f"{OPT}.param_groups[0].lr", severity="warning",
        message="the learning rate is 0 after 20 steps of the scheduler, nothing of the 0.001 it started from",
    )  # fmt: skip
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scheduler/exhausted"]


def test_exhausted_ratio(make_checkpoint, run_rule):
    ck = make_checkpoint(planned_updates=21)
    run_rule(Exhausted(), ck).assert_passed()
    run_rule(Exhausted(ratio=0.01), ck).assert_one(message="0.006 times the 0.001 it started from")


def test_exhausted_at_the_planned_end_is_no_news(make_checkpoint, run_rule):
    run_rule(Exhausted(), make_checkpoint(planned_updates=20, extra={"num_epochs": 2})).assert_passed()


def test_one_group_at_zero_is_not_the_end(make_checkpoint, run_rule):
    ck = (
        make_checkpoint()
        .set_key(STATE, f"{OPT}.param_groups.0.lr", 0.0)
        .set_key(STATE, f"{SCHED}.base_lrs", [0.0, 0.001])
    )
    run_rule(Exhausted(), ck).assert_passed()


def test_scaler_missing(make_checkpoint, run_rule, kit):
    """Without options nobody can tell a run in full precision, which needs none, from one that lost its scaler."""
    ck = make_checkpoint(scaler=None)
    run_rule(ScalerMissing(), ck).assert_one(
        path=STATE,
        key=SCALER,
        severity="info",
        message="there is no gradient scaler state: a legacy checkpoint without AMP state",
    )
    assert [f.rule for f in kit.verify(ck.path).findings] == ["scaler/missing"]


@pytest.mark.parametrize(
    "options",
    [{"fp16": True}, {"mixed_precision": "fp16"}, {"precision": 16}, {"precision": "16-mixed"}, {"use_fp16": True}],
)
@pytest.mark.parametrize("key", ["config", "args", "hparams"])
def test_scaler_missing_where_options_say_fp16(key, options, kit, tmp_path, run_rule):
    run = kit.train()
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(), "global_step": 14, key: options}
    run_rule(ScalerMissing(), kit.save_one_file(tmp_path / "ck", state)).assert_one(
        path="checkpoint.pt", severity="warning"
    )


@pytest.mark.parametrize(
    "options", [{"bf16": True}, {"mixed_precision": "bf16"}, {"fp16": False}, {"dtype": "float16"}]
)
def test_no_scaler_is_needed(options, kit, tmp_path, run_rule):
    run = kit.train()
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "global_step": 14,
        "config": options,
    }
    run_rule(ScalerMissing(), kit.save_one_file(tmp_path / "ck", state)).assert_passed()


def test_scaler_present(make_checkpoint, run_rule):
    for scaler in (True, False):
        run_rule(ScalerMissing(), make_checkpoint(scaler=scaler)).assert_passed()
    run_rule(ScalerMissing(), make_checkpoint(scaler=None, dtype="bfloat16")).assert_passed()
    run_rule(ScalerMissing(), make_checkpoint(scaler=None, extra={SCALER: None})).assert_passed()


@pytest.mark.parametrize(
    ("scale", "severity"),
    [(0.0, "error"), (math.nan, "error"), (math.inf, "error"), (-2.0, "error"), ("x", "error"), (0.5, "warning"), (1e-9, "warning"), (torch.tensor(0.0), "error")],
)  # fmt: skip
def test_collapsed_scaler(scale, severity, make_checkpoint, run_rule):
    ck = make_checkpoint(scaler=True).set_key(STATE, f"{SCALER}.scale", scale)
    run_rule(CollapsedScaler(), ck).assert_one(
        path=STATE, key=f"{SCALER}.scale", severity=severity, message="the loss scale is "
    )


def test_scaler_in_order(make_checkpoint, run_rule):
    run_rule(CollapsedScaler(), make_checkpoint(scaler=True)).assert_passed()
    run_rule(CollapsedScaler(), make_checkpoint(scaler=True).set_key(STATE, f"{SCALER}.scale", 1.0)).assert_passed()
    run_rule(CollapsedScaler(), make_checkpoint(scaler=False)).assert_skipped("disabled")
    run_rule(CollapsedScaler(), make_checkpoint(scaler=None)).assert_skipped("no gradient scaler state")


def test_rng_missing(make_checkpoint, run_rule):
    run_rule(RngMissing(), make_checkpoint(rng=False)).assert_one(path=STATE, key="rng_state", severity="info")
    run_rule(RngMissing(), make_checkpoint()).assert_passed()
    ck = make_checkpoint(rng=False, extra={"torch_rng_state": torch.get_rng_state()})
    run_rule(RngMissing(), ck).assert_passed()
    run_rule(RngMissing(), make_checkpoint().set_key(STATE, "rng_state", "x")).assert_one(message="'rng_state' is text")

"""Sequences and chains of schedulers, and several schedulers: clean ones pass, moved counters and rates are found."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.optim import lr_scheduler as lr

from ckpt_rules_training.scheduler_lr import Exhausted, LrMismatch
from ckpt_rules_training.scheduler_steps import StepMismatch

STATE, SCHED = "training_state.pth", "scheduler_state_dict"
RULES = (StepMismatch(), LrMismatch(), Exhausted())


def sequence(o):
    parts = [lr.LinearLR(o, 0.1, total_iters=3), lr.CosineAnnealingLR(o, 30), lr.CosineAnnealingWarmRestarts(o, 4)]
    return lr.SequentialLR(o, parts, [3, 7])


def chain(o):
    return lr.ChainedScheduler([lr.LinearLR(o, 0.1, total_iters=3), lr.ExponentialLR(o, 0.9)])


def chained_sequence(o):
    inner = lr.SequentialLR(o, [lr.LinearLR(o, 0.1, total_iters=3), lr.ExponentialLR(o, 0.5)], [3])
    return lr.ChainedScheduler([inner, lr.ExponentialLR(o, 0.9)])


def nested_sequence(o):
    inner = lr.SequentialLR(o, [lr.LinearLR(o, 0.1, total_iters=3), lr.ExponentialLR(o, 0.5)], [3])
    with warnings.catch_warnings():  # the inner one steps while it is built
        warnings.simplefilter("ignore", UserWarning)
        return lr.SequentialLR(o, [inner, lr.CosineAnnealingLR(o, 30)], [7])


SCHEDULES = {
    "nested sequence": nested_sequence,
    "sequence": sequence,
    "chain": chain,
    "chained sequence": chained_sequence,
    "one cycle": lambda o: lr.OneCycleLR(o, 1e-2, total_steps=14),
    "warm restarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [(1, 2), (1, 3), (1, 4), (2, 1)])
def test_a_clean_one_before_at_and_after_each_milestone(kit, tmp_path, run_rule, name, stop):
    path = kit.save_canonical(kit.train(scheduler=SCHEDULES[name], stop=stop), tmp_path / "saved")
    for rule in RULES:
        run_rule(rule, path).assert_passed()


@pytest.fixture
def saved(kit, tmp_path):
    """`saved(schedule, (keys, value)…)`: a checkpoint at update 9 with other values in its scheduler's state."""

    def save(schedule, *changes):
        path = kit.save_canonical(kit.train(scheduler=schedule, stop=(2, 2)), tmp_path / "saved")
        state = torch.load(path / STATE)
        for keys, value in changes:
            inside = state[SCHED]
            for key in keys[:-1]:
                inside = inside[key]
            inside[keys[-1]] = value
        torch.save(state, path / STATE)
        return path

    return save


class TestSequence:
    """At update 9, the third part has made the two steps since its milestone, 7."""

    def test_its_own_counter(self, saved, run_rule):
        path = saved(sequence, (("last_epoch",), 5))
        run_rule(StepMismatch(), path).assert_one(path=STATE, key=f"{SCHED}.last_epoch", data={"last_epoch": 5})

    @pytest.mark.parametrize("value", [-1, 1, 9])
    def test_the_counter_of_the_part_at_work(self, saved, run_rule, value):
        path = saved(sequence, (("_schedulers", 2, "last_epoch"), value))
        found = run_rule(StepMismatch(), path).assert_one(path=STATE, key=f"{SCHED}._schedulers[2].last_epoch")
        assert found.message == (
            f"last_epoch of a part of the scheduler (CosineAnnealingWarmRestarts) is {value}, but the sequence of schedulers is "
            "at step 9, 2 after this part began"
        )

    @pytest.mark.parametrize("part", [0, 1])
    def test_parts_that_are_done_are_never_looked_at_again(self, saved, run_rule, part):
        """torch does not step them any more."""
        run_rule(StepMismatch(), saved(sequence, (("_schedulers", part, "last_epoch"), 5))).assert_passed()

    @pytest.mark.parametrize("value", [2, 5])
    def test_the_counter_of_a_sequence_inside_of_it(self, saved, run_rule, value):
        """torch leaves it one ahead, at 4 of the 3 steps made."""
        path = saved(nested_sequence, (("last_epoch",), 3), (("_schedulers", 0, "last_epoch"), value))
        run_rule(StepMismatch(tolerance=6), path).assert_one(key=f"{SCHED}._schedulers[0].last_epoch")

    def test_its_own_rate(self, saved, run_rule):
        path = saved(sequence, (("_last_lr",), [0.5]))
        found = run_rule(LrMismatch(), path).assert_one(path=STATE, key=f"{SCHED}._schedulers[2]._last_lr[0]")
        assert found.message.startswith(
            "the scheduler set the learning rate of parameter group 0 to 0.5, but its active part"
        )

    def test_the_rate_of_the_part_at_work(self, saved, run_rule):
        path = saved(sequence, (("_schedulers", 2, "_last_lr"), [0.5]))
        run_rule(LrMismatch(), path).assert_one(key=f"{SCHED}._schedulers[2]._last_lr[0]", message="to 0.5")

    def test_both_rates(self, saved, run_rule):
        path = saved(sequence, (("_last_lr",), [0.5]), (("_schedulers", 2, "_last_lr"), [0.5]))
        run_rule(LrMismatch(), path).assert_one(key="optimizer_state_dict.param_groups[0].lr")

    @pytest.mark.parametrize("milestones", [[0, 7], [7, 3], ["x", 7], [3, 7, 8]])
    def test_milestones_that_say_nothing(self, saved, run_rule, milestones):
        path = saved(sequence, (("_milestones",), milestones), (("_schedulers", 2, "last_epoch"), 5))
        run_rule(StepMismatch(), path).assert_passed()

    def test_a_warm_up_from_nothing_is_not_the_end(self, kit, tmp_path, run_rule):
        def frozen(o):
            return lr.SequentialLR(o, [lr.ConstantLR(o, 1e-9, total_iters=12), lr.ExponentialLR(o, 0.9)], [12])

        path = kit.save_canonical(kit.train(scheduler=frozen, stop=(2, 2)), tmp_path / "saved")
        run_rule(Exhausted(), path).assert_passed()


class TestChain:
    def test_a_part_that_made_other_steps(self, saved, run_rule):
        path = saved(chain, (("_schedulers", 1, "last_epoch"), 4))
        found = run_rule(StepMismatch(), path).assert_one(key=f"{SCHED}._schedulers[1].last_epoch")
        assert (
            found.message
            == "last_epoch of a part of the scheduler (ExponentialLR) is 4, but the first scheduler of the chain has made 9"
        )

    def test_all_of_its_parts(self, saved, run_rule):
        path = saved(chain, (("_schedulers", 0, "last_epoch"), 4), (("_schedulers", 1, "last_epoch"), 4))
        run_rule(StepMismatch(), path).assert_one(key=f"{SCHED}._schedulers[0].last_epoch", data={"last_epoch": 4})

    def test_a_part_of_a_part(self, saved, run_rule):
        path = saved(chained_sequence, (("_schedulers", 0, "_schedulers", 1, "last_epoch"), 1))
        run_rule(StepMismatch(), path).assert_one(
            key=f"{SCHED}._schedulers[0]._schedulers[1].last_epoch", data={"last_epoch": "1", "expected": 6}
        )

    def test_its_rate(self, saved, run_rule):
        run_rule(LrMismatch(), saved(chain, (("_last_lr",), [0.5]))).assert_one(
            key=f"{SCHED}._schedulers[1]._last_lr[0]"
        )


def test_parts_nested_without_end(saved, run_rule):
    inner = {"_schedulers": []}
    for _ in range(50):
        inner = {"_schedulers": [inner], "_last_lr": [1.0], "_milestones": []}
    path = saved(chain, (("_schedulers", 0), inner))
    assert run_rule(StepMismatch(), path).status in ("skipped", "failed", "passed")

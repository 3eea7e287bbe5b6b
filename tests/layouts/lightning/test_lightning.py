"""Lightning's checkpoints: recognised, silent when clean, resumed where we say, and each damage found."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ckpt_rules import inspect, verify
from ckpt_rules.reporters.inspection import render
from tests.layouts.killing import Damage, damages_of, said, survey_of, torch_value

TRAIN = "lightning/train.py"
VARIANTS = (
    "plain", "accumulated", "manual", "bf16", "by-epoch", "sgd", "unscheduled", "linked", "ddp",
    "averaged", "late-average", "thawed", "every-other",
)  # fmt: skip
FIT = ("loops", "fit_loop")
MID, END = "checkpoints/epoch=1-step=20.ckpt", "checkpoints/end-epoch=1-step=24.ckpt"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_lightning_saves_passes_in_strict_mode(made, variant):
    found = sorted((made(TRAIN, variant) / "checkpoints").glob("*.ckpt"))
    assert len(found) >= 6
    for checkpoint in found:
        report = verify(checkpoint, ruleset="deep", strict=True)
        assert report.layout.name == "lightning"
        assert report.passed, said(report)
        assert not report.findings, said(report)


@pytest.mark.parametrize("variant", ["plain", "accumulated"])
def test_the_plan_is_what_the_real_trainer_does(made, variant):
    out = made(TRAIN, variant, "resume")
    checked = 0
    for name, seen in json.loads((out / "resumed.json").read_text()).items():
        inspected = inspect(out / "checkpoints" / name)
        plan, batches = inspected.resume, 12
        if seen["batches"] == 0:
            assert plan.epoch == 4
            continue
        index, first_batch = seen["first"]
        later = (3 - plan.epoch) * batches
        assert seen["batches"] == later + (batches if plan.trained is None else plan.trained) - (
            inspected.progress.step if plan.trained is None else 0
        )
        assert index == inspected.progress.step
        assert (seen["epoch"], seen["global_step"]) == (plan.epoch - 1, plan.from_update)
        assert first_batch == [2.0 * plan.skipped, 2.0 * plan.skipped + 1]  # the data always start again
        assert seen["rates"] == list(inspected.optimizer.lrs)
        checked += 1
    assert checked >= 5


def test_with_max_steps_a_complete_epoch_has_one_batch_more(made):
    """What was saved at its end; what was saved in its last batch has not."""
    out = made(TRAIN, "max-steps", "resume")
    seen = json.loads((out / "resumed.json").read_text())
    end = inspect(out / END).resume.sentence
    assert seen["end-epoch=1-step=24.ckpt"]["first"] == [12, [0.0, 1.0]]
    assert end.endswith("; with max_steps, Lightning 2.6.6 first trains one more batch of the completed epoch")
    assert seen["epoch=1-step=20.ckpt"]["first"][0] == inspect(out / MID).progress.step == 8


class TestRecognition:
    def test_a_file_is_a_checkpoint(self, made):
        inspection = inspect(made(TRAIN, "plain") / MID)
        assert inspection.layout.name == "lightning"
        assert inspection.layout.signs[0] == "'pytorch-lightning_version' in epoch=1-step=20.ckpt"
        assert (inspection.progress.epoch, inspection.progress.step, inspection.progress.total_batches) == (2, 8, 12)
        assert "continues after batch 8 of 12, but the dataloader state was not saved" in inspection.resume.sentence

    def test_a_file_alone_in_its_directory_is_one_as_well(self, made, tmp_path):
        shutil.copy2(made(TRAIN, "plain") / MID, tmp_path / "last.ckpt")
        report = verify(tmp_path, ruleset="deep", strict=True)
        assert (report.layout.name, report.passed) == ("lightning", True)

    def test_two_optimizers_are_both_looked_at(self, tmp_path, made):
        path = tmp_path / "last.ckpt"
        whole = torch.load(made(TRAIN, "manual") / "checkpoints" / "last.ckpt", weights_only=False)
        whole["optimizer_states"][1]["param_groups"][0]["lr"] = -1.0
        torch.save(whole, path)
        (found,) = verify(path).findings
        assert (found.rule, found.place.key) == (
            "optimizer/bad-hyperparameter",
            "optimizer_states[1].param_groups[0].lr",
        )


class TestSeveralSchedulers:
    """`manual` trains two optimizers: a sequence steps with each batch, a StepLR with each epoch."""

    @pytest.fixture
    def changed(self, made, tmp_path):
        def change(number, key, value):
            whole = torch.load(made(TRAIN, "manual") / "checkpoints" / "epoch=1-step=40.ckpt", weights_only=False)
            whole["lr_schedulers"][number][key] = value
            torch.save(whole, tmp_path / "last.ckpt")
            return [(f.rule, f.place.key) for f in verify(tmp_path / "last.ckpt").findings]

        return change

    def test_each_is_shown(self, made):
        path = made(TRAIN, "manual") / "checkpoints" / "epoch=1-step=40.ckpt"
        inspected = inspect(path)
        assert inspected.scheduler is None
        assert [(s.kind, s.key, s.last_epoch) for s in inspected.schedulers] == [
            ("SequentialLR", "lr_schedulers[0]", 20),
            ("StepLR", "lr_schedulers[1]", 1),
        ]
        assert "key lr_schedulers[1]: StepLR, 1 steps, learning rate 0.0005, base 0.001" in " ".join(
            render(inspected).split()
        )

    @pytest.mark.parametrize(("number", "value"), [(0, 15), (0, 40), (1, 9), (1, -1)])
    def test_a_counter_that_was_moved(self, changed, number, value):
        assert changed(number, "last_epoch", value) == [
            ("scheduler/step-mismatch", f"lr_schedulers[{number}].last_epoch")
        ]

    def test_the_rate_of_a_sequence_that_was_moved(self, changed):
        assert changed(0, "_last_lr", [0.3]) == [
            ("scheduler/lr-mismatch", "lr_schedulers[0]._schedulers[2]._last_lr[0]")
        ]

    def test_a_rate_that_was_moved(self, changed):
        """Its own optimizer is the one that no other scheduler's rates fit."""
        assert changed(1, "_last_lr", [0.3]) == [("scheduler/lr-mismatch", "optimizer_states[1].param_groups[0].lr")]

    def test_more_rates_than_any_optimizer_has_groups(self, changed):
        assert changed(1, "_last_lr", [0.3, 0.3]) == [("scheduler/lr-mismatch", "lr_schedulers[1]._last_lr")]


@pytest.mark.parametrize(
    ("key", "rule", "words"),
    [
        ("loops", "state/missing-field", "starts again at epoch 0 with the old optimizer, silently"),
        ("state_dict", "state/missing-field", "KeyError: 'state_dict'"),
        ("pytorch-lightning_version", "state/missing-field", "KeyError: 'pytorch-lightning_version'"),
        ("optimizer_states", "optimizer/missing", "Trying to restore optimizer state"),
        ("lr_schedulers", "scheduler/missing", "Trying to restore learning rate scheduler state"),
    ],
)
def test_a_part_that_is_not_there(made, tmp_path, key, rule, words):
    whole = torch.load(made(TRAIN, "plain") / MID, weights_only=False)
    del whole[key]
    torch.save(whole, tmp_path / "epoch=1-step=20.ckpt")
    found = [f for f in verify(tmp_path / "epoch=1-step=20.ckpt").findings if f.rule == rule]
    assert [f.place.key for f in found] == [key]
    assert words in found[0].message


def test_weights_alone_are_nothing_to_resume_from(made):
    report = verify(made(TRAIN, "weights-only") / "checkpoints" / "epoch=0-step=10.ckpt")
    assert not report.passed
    (found,) = [f for f in report.findings if f.severity == "error"]
    assert (found.rule, found.place.key) == ("optimizer/missing", "optimizer_states")
    assert "save_weights_only" in found.message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("global_step", 21, "global_step is 21, which Lightning does not read"),
        ("global_step", -1, "from which it restores, 20 optimizer steps were completed"),
        ("epoch", 5, "from which it restores, the loop is in epoch 1"),
        ("epoch", "one", "epoch is 'one', which Lightning does not read"),
    ],
)
def test_counters_at_the_top_are_not_read(made, tmp_path, key, value, words):
    """A resume of the real Trainer goes by the loops alone."""
    whole = torch.load(made(TRAIN, "plain") / MID, weights_only=False)
    torch.save({**whole, key: value}, tmp_path / "epoch=1-step=20.ckpt")
    report = verify(tmp_path / "epoch=1-step=20.ckpt", strict=True)
    assert report.passed, said(report)
    (found,) = report.findings
    assert (found.rule, found.severity, found.place.key) == ("progress/counters-disagree", "info", key)
    assert words in found.message
    assert inspect(tmp_path / "epoch=1-step=20.ckpt").progress.epoch == 2


COUNTERS = (
    ((*FIT, "epoch_progress", "current", "ready"), 4),
    ((*FIT, "epoch_loop.batch_progress", "current", "processed"), 3),
    ((*FIT, "epoch_loop.batch_progress", "current", "ready"), 30),
    ((*FIT, "epoch_loop.batch_progress", "total", "ready"), 4),
    ((*FIT, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed"), 11),
    (("global_step",), 21),
    (("global_step",), -1),
    (("epoch",), 5),
    (("epoch",), "one"),
    (("optimizer_states", 0, "state"), {}),
    (("lr_schedulers", 0, "last_epoch"), 3),
    (("optimizer_states",), {"a": 1}),
)


def test_each_damage_is_found(made, tmp_path, survived):
    directory = tmp_path / "one"
    directory.mkdir()
    source = made(TRAIN, "plain") / "checkpoints"
    shutil.copy2(source / "epoch=1-step=20.ckpt", directory / "last.ckpt")
    values: list[Damage] = [torch_value("last.ckpt", keys, value) for keys, value in COUNTERS]
    bytes_ = [d for d in damages_of(directory) if not d.name.endswith("missing")]
    survey = survey_of(directory, [*bytes_, *values], tmp_path)
    survived(survey, {})
    assert len(survey.killed) == len(COUNTERS) + 4

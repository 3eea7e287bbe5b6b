"""One-file checkpoints of trainers that we know: recognised, silent when clean, and read by each one's own counting."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

MAKE = "one_file/make.py"
FILES = {
    "nanogpt": "ckpt.pt",
    "fairseq": "checkpoint_last.pt",
    "timm": "last.pth.tar",
    "detectron2": "model_0000005.pth",
    "ultralytics": "last.pt",
    "mmengine": "epoch_2.pth",
}
FIXTURES = Path(__file__).parent / "fixtures"
"""What make.py wrote with fvcore and mmengine, of each the last saves and the file that names the newest."""

needs_mmengine = pytest.mark.skipif(
    importlib.util.find_spec("mmengine") is None, reason="torch.load needs mmengine's classes to change its files"
)
LOADED = [pytest.param(name, marks=needs_mmengine if name == "mmengine" else ()) for name in FILES]

pytestmark = pytest.mark.slow


@pytest.fixture
def home(made):
    """`home("timm")`: the directory of a run."""
    return lambda dialect: FIXTURES / dialect if (FIXTURES / dialect).is_dir() else made(MAKE, dialect)


@pytest.fixture
def saved(home):
    """`saved("timm")`: the file that a resume takes."""
    return lambda dialect: home(dialect) / FILES[dialect]


@pytest.fixture
def changed(saved, tmp_path):
    """`changed("timm", epoch=3)`: a copy with other values at the top; those that are None are left out."""

    def change(dialect, name=None, **values):
        whole = {**torch.load(saved(dialect), weights_only=False), **values}
        path = tmp_path / (name or FILES[dialect])
        torch.save({k: v for k, v in whole.items() if v is not None or k not in values}, path)
        return path

    return change


@pytest.mark.parametrize("dialect", FILES)
@pytest.mark.parametrize("alone", [True, False], ids=["file", "directory"])
def test_what_is_whole_passes_in_strict_mode(dialect, alone, saved, tmp_path):
    path = saved(dialect)
    if not alone:
        shutil.copy2(path, tmp_path)
        path = tmp_path
    for ruleset in ("default", "ci", "deep"):
        report = verify(path, strict=True, ruleset=ruleset)
        assert report.layout.name == dialect
        assert report.passed, said(report)
        assert [f.severity for f in report.findings if f.severity != "info"] == []


@pytest.mark.parametrize(
    ("dialect", "words", "epoch", "update"),
    [
        ("nanogpt", "training goes on with iteration 6, with batches drawn at random", None, 6),
        ("fairseq", "epoch 2 goes on after batch 2", 2, 6),
        ("timm", "epoch 3 is complete; training starts epoch 4 at its first batch", 4, None),
        ("detectron2", "iteration 5, counted from 0, is done; training goes on with 6", None, 6),
        ("ultralytics", "epoch 3 is complete; training starts epoch 4 at its first batch", 4, None),
        ("mmengine", "training starts epoch 3 at its first batch", 3, 10),
    ],
)
def test_the_plan_follows_each_trainers_counting(dialect, words, epoch, update, saved):
    plan = inspect(saved(dialect)).resume
    assert plan.sentence.startswith(words)
    assert (plan.epoch, plan.from_update) == (epoch, update)


def test_a_timm_recovery_file_leaves_out_the_rest_of_its_epoch(made):
    plan = inspect(made(MAKE, "timm") / "recovery-2-50.pth.tar").resume
    assert plan.epoch == 4
    assert plan.sentence.endswith("training starts epoch 4: what was left of epoch 3 is not trained")


def test_an_older_timm_counts_the_epoch_to_come(changed):
    assert inspect(changed("timm", version=1)).resume.epoch == 3


def test_a_stripped_file_is_for_inference(made):
    path = made(MAKE, "ultralytics") / "best.pt"
    (found,) = verify(path).findings
    assert (found.rule, found.severity, found.place.path, found.place.key) == (
        "weights/stripped",
        "warning",
        "best.pt",
        "epoch",
    )
    assert verify(path, strict=True, ruleset="inference").passed


def test_the_weights_in_a_pickled_module_are_seen(saved):
    report = inspect(saved("ultralytics"))
    assert (report.weights.tensors, report.weights.parameters) == (4, 49)


@pytest.mark.parametrize(
    ("dialect", "key", "rule", "words"),
    [
        ("nanogpt", "optimizer", "optimizer/missing", "KeyError: 'optimizer'"),
        ("nanogpt", "model", "state/missing-field", "KeyError: 'model'"),
        ("fairseq", "last_optimizer_state", "optimizer/missing", "updates and learning rate from the start, without a word"),
        ("fairseq", "model", "state/missing-field", "KeyError: 'model'"),
        ("timm", "optimizer", "optimizer/missing", "a new optimizer, without a word"),
        ("ultralytics", "optimizer", "optimizer/missing", "a new optimizer, without a word"),
        ("detectron2", "iteration", "state/missing-field", "starts again at iteration 0"),
        ("detectron2", "scheduler", "scheduler/missing", "the schedule starts again"),
        pytest.param("mmengine", "param_schedulers", "state/missing-field", "starts each schedule again", marks=needs_mmengine),
        pytest.param("mmengine", "optimizer", "optimizer/missing", "a new optimizer, without a word", marks=needs_mmengine),
    ],
)  # fmt: skip
def test_a_part_that_is_not_there(dialect, key, rule, words, changed):
    found = [f for f in verify(changed(dialect, **{key: None})).findings if f.rule == rule]
    assert [f.place.key for f in found] == [key]
    assert words in found[0].message


class TestPointers:
    def test_the_newest_is_named(self, home):
        report = verify(home("detectron2") / "model_0000005.pth")
        assert [o.rule for o in report.outcomes if o.rule == "files/dangling-pointer" and o.status == "passed"]

    def test_an_older_one_is_named(self, home, tmp_path):
        run = shutil.copytree(home("detectron2"), tmp_path / "run")
        (run / "last_checkpoint").write_text("model_0000002.pth")
        (found,) = verify(run / "model_0000005.pth").findings
        assert (found.rule, found.place.path) == ("files/stale-pointer", "../last_checkpoint")
        assert "'model_0000005.pth' is newer" in found.message
        assert not verify(run / "model_0000002.pth").findings

    def test_one_is_named_that_is_gone(self, home, tmp_path):
        run = shutil.copytree(home("detectron2"), tmp_path / "run")
        (run / "last_checkpoint").write_text("model_0000008.pth")
        (found,) = verify(run / "model_0000005.pth").findings
        assert (found.rule, found.place.path) == ("files/dangling-pointer", "../last_checkpoint")

    def test_the_whole_run_was_moved(self, home, tmp_path):
        run = shutil.copytree(home("mmengine"), tmp_path / "run")
        assert (run / "last_checkpoint").read_text() != str(run / "epoch_2.pth")
        assert verify(run / "epoch_2.pth", ruleset="deep", strict=True).passed


MOVED = {
    "nanogpt": [(("iter_num",), 0), (("iter_num",), 400), (("iter_num",), -1)],
    "fairseq": [
        (("optimizer_history", 0, "num_updates"), 0),
        (("extra_state", "train_iterator", "epoch"), "two"),
        (("extra_state", "train_iterator", "iterations_in_epoch"), -2),
    ],
    "timm": [(("epoch",), -1), (("epoch",), 2.5)],
    "detectron2": [(("iteration",), 400), (("iteration",), -3), (("scheduler", "last_epoch"), 3)],
    "ultralytics": [(("epoch",), "two"), (("optimizer", "state"), {})],
    "mmengine": [
        (("meta", "iter"), 400),
        (("meta", "epoch"), 7),
        (("param_schedulers", 0, "_global_step"), 9),
        (("message_hub", "runtime_info", "iter"), 3),
    ],
}


@pytest.mark.parametrize("dialect", LOADED)
def test_each_damage_is_found(dialect, saved, tmp_path, survived):
    source = tmp_path / "one"
    source.mkdir()
    shutil.copy2(saved(dialect), source)
    name = FILES[dialect]
    bytes_ = [d for d in damages_of(source) if not d.name.endswith("missing")]
    survey = survey_of(source, [*bytes_, *(torch_value(name, *moved) for moved in MOVED[dialect])], tmp_path)
    survived(survey, {})
    assert len(survey.killed) == len(MOVED[dialect]) + 4

"""One-file checkpoints of trainers that we know: recognised, silent when clean, and read by each one's own counting.

All but nanoGPT's were written and resumed by the trainers' own libraries (train_*.py), and resumed.json says what they did.
"""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import Damage, damages_of, said, survey_of, torch_value
from tests.layouts.one_file.stand_in import StandIn
from tests.layouts.one_file.written import FIXTURES, seen_of

FILES = {
    "nanogpt": "at-6/ckpt.pt",
    "fairseq": "run/checkpoint_2_7.pt",
    "timm": "run/last.pth.tar",
    "detectron2": "plain/model_0000005.pth",
    "ultralytics": "interrupted/last.pt",
    "mmengine": "epochs/epoch_2.pth",
}
"""Of each trainer one save of many."""

STRIPPED = ("ultralytics/finished/last.pt", "ultralytics/finished/best.pt")
SAVES = sorted(
    path.relative_to(FIXTURES).as_posix()
    for path in FIXTURES.glob("*/*/*")
    if path.suffix != ".json" and path.name != "last_checkpoint"
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def without_their_libraries(monkeypatch):
    """torch.load finds no class of mmengine or ultralytics here; any will do to change a counter beside them."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, StandIn("mmengine", "ultralytics")])


@pytest.fixture
def home(made):
    """`home("timm")`: the directory that holds the runs of one trainer."""
    return lambda trainer: FIXTURES / trainer if (FIXTURES / trainer).is_dir() else made("one_file/train_nanogpt.py")


@pytest.fixture
def saved(home):
    """`saved("timm")`: the file that a resume takes."""
    return lambda trainer, file=None: home(trainer) / (file or FILES[trainer])


@pytest.fixture
def changed(saved, tmp_path):
    """`changed("timm", epoch=3)`: a copy with other values at the top; those that are None are left out."""

    def change(trainer, file=None, /, **values):
        source = saved(trainer, file)
        whole = {**torch.load(source, weights_only=False), **values}
        path = tmp_path / source.name
        torch.save({k: v for k, v in whole.items() if v is not None or k not in values}, path)
        return path

    return change


def silent(path, trainer):
    for ruleset in ("default", "ci", "deep"):
        report = verify(path, strict=True, ruleset=ruleset)
        assert report.layout.name == trainer
        assert report.passed, said(report)
        assert [f.severity for f in report.findings if f.severity != "info"] == []


@pytest.mark.parametrize("save", [save for save in SAVES if save not in STRIPPED])
def test_what_a_trainer_saved_passes_in_strict_mode(save):
    silent(FIXTURES / save, save.partition("/")[0])


@pytest.mark.parametrize("trainer", FILES)
def test_alone_in_its_directory_it_passes_as_well(trainer, saved, tmp_path):
    shutil.copy2(saved(trainer), tmp_path)
    silent(tmp_path, trainer)


class TestWithoutItsPointer:
    """A run whose `last_checkpoint` is gone: the trainer finds no save and starts from scratch."""

    @pytest.mark.parametrize(
        ("trainer", "file", "name", "beside"),
        [
            ("mmengine", None, "epoch_2.pth", "20260101_120000"),
            ("mmengine", None, "epoch_2.pth", "epoch_1.pth"),
            ("detectron2", None, "model_0000004.pth", "metrics.json"),
        ],
    )
    def test_it_is_a_warning_where_the_file_lies_in_a_run(self, trainer, file, name, beside, saved, tmp_path):
        shutil.copy2(saved(trainer, file), tmp_path / name)
        assert not dangling(tmp_path / name)
        (tmp_path / beside).mkdir()
        (found,) = dangling(tmp_path / name)
        assert (found.severity, found.place.path) == ("warning", "../last_checkpoint")
        assert "last_checkpoint is missing" in found.message

    @pytest.mark.parametrize("content", [b"epoch_2\0", "epoch_2.pth".encode("utf-16"), b"x" * 4_097, None])
    def test_one_that_can_not_be_read_is_an_error(self, content, saved, tmp_path):
        shutil.copy2(saved("mmengine", None), tmp_path / "epoch_2.pth")
        if content is None:
            (tmp_path / "last_checkpoint").mkdir()
        else:
            (tmp_path / "last_checkpoint").write_bytes(content)
        (found,) = dangling(tmp_path / "epoch_2.pth")
        assert (found.severity, found.place.path) == ("error", "../last_checkpoint")


def dangling(path):
    report = verify(path)
    assert not any(o.crash for o in report.outcomes), said(report)
    return [f for f in report.findings if f.rule == "files/dangling-pointer"]


class TestResumes:
    """The plan is what the trainer did."""

    @pytest.mark.parametrize("file", sorted(seen_of("mmengine")))
    def test_mmengine(self, file, saved):
        seen, found = seen_of("mmengine")[file], inspect(saved("mmengine", file))
        by_epochs = not file.startswith("iterations")
        assert found.resume.epoch == (seen["epoch"] + 1 if by_epochs else None)
        assert seen["batch_idx"] == (0 if by_epochs else seen["iter"])
        assert (found.resume.from_update, found.optimizer.lrs[0]) == (seen["updates"], seen["lr"])
        assert f"iteration {seen['iter']}" in found.resume.sentence
        assert seen["as_before"] is not found.resume.sentence.endswith("trained again")

    @pytest.mark.parametrize("file", sorted(seen_of("detectron2")))
    def test_fvcore(self, file, saved):
        seen, found = seen_of("detectron2")[file], inspect(saved("detectron2", file))
        assert found.resume.from_update == seen["iteration"]
        assert found.resume.sentence.endswith(f"training continues with {seen['iteration']}")
        assert found.optimizer.lrs == (seen["lr"],)

    @pytest.mark.parametrize("file", sorted(seen_of("timm")))
    def test_timm(self, file, saved):
        seen, found = seen_of("timm")[file], inspect(saved("timm", file))
        assert (found.resume.epoch, found.resume.skipped) == (seen["epoch"] + 1, 0)
        assert found.optimizer.updates == seen["updates"]
        assert ("is not trained" in found.resume.sentence) is ("recovery" in file)

    @pytest.mark.parametrize("file", sorted(seen_of("fairseq")))
    def test_fairseq(self, file, saved):
        seen, found = seen_of("fairseq")[file], inspect(saved("fairseq", file))
        plan = found.resume
        assert (plan.epoch, plan.skipped, plan.from_update) == (seen["epoch"], seen["before"], seen["updates"])
        assert found.optimizer.lrs[0] == pytest.approx(seen["lr"])
        # From the second epoch on a resume cuts the data into other batches than a run that was never broken off.
        assert (seen["items"] == seen["unbroken"][plan.skipped]) is (plan.epoch == 1)

    @pytest.mark.parametrize("file", ["interrupted/last.pt", "interrupted/best.pt"])
    def test_ultralytics(self, file, saved):
        seen, found = seen_of("ultralytics")[file], inspect(saved("ultralytics", file))
        assert (found.resume.epoch, found.optimizer.updates) == (seen["epoch"] + 1, seen["updates"])

    def test_ultralytics_refuses_what_is_finished(self, saved):
        assert "nothing to resume" in seen_of("ultralytics")["finished/epoch0.pt"]["refused"]
        plan = inspect(saved("ultralytics", "finished/epoch0.pt")).resume
        assert plan.sentence == "epoch 1 of 1 is complete; ultralytics stops, for nothing is left to train"

    def test_ultralytics_starts_anew_from_what_is_stripped(self, saved):
        """Or refuses it, where its path is given."""
        seen = seen_of("ultralytics")
        assert (seen["finished/last.pt"]["epoch"], seen["finished/last.pt"]["updates"]) == (0, 0)
        assert "nothing to resume" in seen["finished/last.pt by its path"]["refused"]

    @pytest.mark.parametrize("file", ["at-2/ckpt.pt", "at-6/ckpt.pt"])
    def test_nanogpt(self, file, home):
        seen = json.loads((home("nanogpt") / "resumed.json").read_text())[file]
        found = inspect(home("nanogpt") / file)
        assert found.resume.from_update == found.optimizer.updates == seen["iteration"] == seen["updates"]
        assert found.optimizer.lrs == (seen["lr"],)


def test_a_timm_recovery_file_leaves_out_the_rest_of_its_epoch(saved):
    plan = inspect(saved("timm", "run/recovery-3-2.pth.tar")).resume
    assert plan.sentence.endswith("training starts epoch 5: the rest of epoch 4 is not trained")


def test_an_older_timm_counts_the_epoch_to_come(changed):
    assert inspect(changed("timm", version=1)).resume.epoch == 3


@pytest.mark.parametrize("save", STRIPPED)
def test_a_stripped_file_is_for_inference(save):
    (found,) = verify(FIXTURES / save).findings
    assert (found.rule, found.severity, found.place.path, found.place.key) == (
        "weights/stripped",
        "warning",
        save.rpartition("/")[2],
        "epoch",
    )
    assert verify(FIXTURES / save, strict=True, ruleset="inference").passed


def test_the_weights_in_a_pickled_module_are_seen(saved):
    report = inspect(saved("ultralytics"))
    assert (report.weights.tensors, report.weights.parameters) == (46, 6348)


@pytest.mark.parametrize(
    ("trainer", "key", "rule", "words"),
    [
        ("nanogpt", "optimizer", "optimizer/missing", "KeyError: 'optimizer'"),
        ("nanogpt", "model", "state/missing-field", "KeyError: 'model'"),
        ("fairseq", "last_optimizer_state", "optimizer/missing", "updates and learning rate from the start, silently"),
        ("fairseq", "model", "state/missing-field", "KeyError: 'model'"),
        ("timm", "optimizer", "optimizer/missing", "a new optimizer, silently"),
        ("ultralytics", "optimizer", "optimizer/missing", "a new optimizer, silently"),
        ("detectron2", "iteration", "state/missing-field", "starts again at iteration 0"),
        ("detectron2", "scheduler", "scheduler/missing", "the schedule starts again"),
        ("mmengine", "param_schedulers", "state/missing-field", "starts each schedule again"),
        ("mmengine", "optimizer", "optimizer/missing", "a new optimizer, silently"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_there(trainer, key, rule, words, changed):
    found = [f for f in verify(changed(trainer, **{key: None})).findings if f.rule == rule]
    assert [f.place.key for f in found] == [key]
    assert words in found[0].message


@pytest.mark.parametrize(
    ("changes", "rule", "key", "words"),
    [
        ({"_trainer": {"iteration": 5}}, "optimizer/missing", "trainer._trainer.optimizer", "KeyError: 'optimizer'"),
        ({"hooks": {}}, "scheduler/missing", "trainer.hooks.LRScheduler", "the schedule starts again, silently"),
        ({"iteration": None}, "state/missing-field", "trainer.iteration", "KeyError: 'iteration'"),
        ({"iteration": 3}, "progress/counters-disagree", "trainer.iteration", "is 3, but iteration is 5"),
    ],
)
def test_what_is_wrong_inside_a_detectron2_trainer(changes, rule, key, words, saved, changed):
    file = "trainer/model_0000005.pth"
    inner = torch.load(saved("detectron2", file), weights_only=False)["trainer"]
    found = [f for f in verify(changed("detectron2", file, trainer={**inner, **changes})).findings if f.rule == rule]
    assert [f.place.key for f in found] == [key]
    assert words in found[0].message


class TestPointers:
    @pytest.fixture
    def run(self, home, tmp_path):
        return shutil.copytree(home("detectron2") / "plain", tmp_path / "run")

    def test_the_newest_is_named(self, run):
        report = verify(run / "model_0000005.pth")
        assert [o.rule for o in report.outcomes if o.rule == "files/dangling-pointer" and o.status == "passed"]

    def test_an_older_one_is_named(self, run):
        (run / "last_checkpoint").write_text("model_0000002.pth")
        (found,) = verify(run / "model_0000005.pth").findings
        assert (found.rule, found.place.path) == ("files/stale-pointer", "../last_checkpoint")
        assert "'model_0000005.pth' is newer" in found.message
        assert not verify(run / "model_0000002.pth").findings

    def test_one_is_named_that_is_gone(self, run):
        (run / "last_checkpoint").write_text("model_0000008.pth")
        (found,) = verify(run / "model_0000005.pth").findings
        assert (found.rule, found.place.path) == ("files/dangling-pointer", "../last_checkpoint")

    def test_the_whole_run_was_moved(self, home, tmp_path):
        run = shutil.copytree(home("mmengine") / "epochs", tmp_path / "run")
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
        (("param_schedulers", 1, "_global_step"), 9),
        (("message_hub", "runtime_info", "iter"), 3),
    ],
}
EARLIER = {
    "nanogpt": "at-4/ckpt.pt",
    "fairseq": "run/checkpoint_1_3.pt",
    "timm": "run/checkpoint-1.pth.tar",
    "detectron2": "plain/model_0000002.pth",
    "mmengine": "epochs/epoch_1.pth",
}
"""Another save, which is put in the place of the one that is looked at: whole, and under a name that is not its own."""

EARLIER_SAVE = "the name says nothing: it is an earlier save, and continues where the plan says"
HARMLESS = {
    "nanogpt": {"ckpt.pt of another step": EARLIER_SAVE},
    "timm": {"last.pth.tar of another step": EARLIER_SAVE},
}


@pytest.mark.parametrize("trainer", FILES)
def test_each_damage_is_found(trainer, home, saved, tmp_path, survived):
    source = tmp_path / "one"
    source.mkdir()
    shutil.copy2(saved(trainer), source)
    name = saved(trainer).name
    damages = [d for d in damages_of(source) if not d.name.endswith("missing")]
    damages += [torch_value(name, *moved) for moved in MOVED[trainer]]
    if trainer in EARLIER:
        earlier = home(trainer) / EARLIER[trainer]
        damages.append(Damage(f"{name} of another step", name, lambda top: shutil.copy2(earlier, top / name)))
    before = {finding.rule for finding in verify(source).findings}
    survey = survey_of(source, damages, tmp_path)
    assert all(set(rules) - before for rules in survey.killed.values()), survey.killed
    survived(survey, HARMLESS.get(trainer, {}))
    assert len(survey.killed) == len(damages) - len(HARMLESS.get(trainer, ()))

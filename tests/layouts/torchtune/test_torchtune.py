"""What torchtune's recipes write, in fixtures that `make fixtures` made with them: silent when clean, each damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = ("full", "ended", "adapter")
STATE = "recipe_state/recipe_state.pt"
SEEN = json.loads((FIXTURES / "resumed.json").read_text())


@pytest.fixture
def copied(tmp_path):
    """`copied("full")`: an output directory that a test may damage."""
    return lambda run: Path(shutil.copytree(FIXTURES / run, tmp_path / run))


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


@pytest.mark.parametrize("run", RUNS)
def test_what_a_recipe_writes_passes_in_strict_mode(run):
    for ruleset in ("default", "ci", "deep", "inference"):
        report = verify(FIXTURES / run, ruleset=ruleset, strict=True)
        assert report.layout.name == "torchtune"
        assert report.passed, said(report)
        assert {f.rule for f in report.findings} <= {"progress/finished"}


class TestResumes:
    """The plan is what the recipe did."""

    @pytest.mark.parametrize("run", RUNS)
    def test_epoch_and_updates(self, run):
        seen, found = SEEN[run], inspect(FIXTURES / run)
        assert (found.resume.epoch, found.resume.skipped) == (seen["epoch"] + 1, 0)
        assert found.optimizer.updates == seen["updates"]
        assert seen["items"] == seen["unbroken"][found.resume.epoch - 1][found.resume.skipped]
        if run != "adapter":  # its recipe starts the schedule again
            assert found.optimizer.lrs == (seen["lr"],)

    def test_the_weights_of_the_newest_epoch_must_be_named(self):
        words = (
            "training starts epoch 3 at its first batch, with the weights of epoch_1, which checkpoint_files must name"
        )
        assert inspect(FIXTURES / "full").resume.sentence == words

    def test_after_the_last_epoch_it_is_trained_again(self):
        found = inspect(FIXTURES / "ended")
        assert found.resume.sentence.startswith("all 2 epochs are trained")
        assert "a resume trains epoch 2 again" in found.resume.sentence
        assert the(verify(FIXTURES / "ended"), "progress/finished").severity == "info"

    def test_lora_starts_its_schedule_again(self):
        found = inspect(FIXTURES / "adapter")
        assert (found.optimizer.lrs, SEEN["adapter"]["lr"]) == ((0.01,), 0.0)
        assert "starts the learning rate's schedule again" in found.progress.notes[0]


class TestEpochs:
    def test_the_recipe_state_is_behind(self, copied):
        run = copied("full")
        shutil.copytree(run / "epoch_1", run / "epoch_3")
        found = the(verify(run), "progress/counters-disagree")
        assert (found.place.path, found.place.key) == (STATE, "epochs_run")
        assert found.message == "epochs_run is 2, but the newest weights, epoch_3, belong to epochs_run 4"

    def test_the_weights_are_behind(self, copied):
        run = copied("full")
        shutil.rmtree(run / "epoch_1")
        found = the(verify(run), "progress/counters-disagree")
        assert found.message == "epochs_run is 2, but the newest weights, epoch_0, belong to epochs_run 1"

    def test_earlier_epochs_may_be_deleted(self, copied):
        run = copied("full")
        shutil.rmtree(run / "epoch_0")
        assert verify(run, strict=True).passed

    def test_without_any_weights(self, copied):
        run = copied("full")
        for epoch in ("epoch_0", "epoch_1"):
            shutil.rmtree(run / epoch)
        assert "files/missing-required" in {f.rule for f in verify(run).findings}

    def test_a_run_of_one_epoch_has_weights_alone(self, copied):
        run = copied("full")
        shutil.rmtree(run / "recipe_state")
        shutil.rmtree(run / "epoch_1")
        assert (run / "torchtune_config.yaml").exists()
        found = the(verify(run), "files/missing-required")
        assert found.place.path == STATE
        assert "a run of one epoch never writes it" in found.message
        assert verify(run, ruleset="inference", strict=True).passed


def test_an_optimizer_within_the_backward_pass_is_read_as_one(copied):
    run = copied("full")
    whole = torch.load(run / STATE)
    inner = whole["optimizer"]["state"]
    (group,) = whole["optimizer"]["param_groups"]
    each = {f"p{i}": {"state": {0: state}, "param_groups": [{**group, "params": [0]}]} for i, state in inner.items()}
    torch.save({**whole, "optimizer": each}, run / STATE)
    report = verify(run, strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)
    assert inspect(run).optimizer.updates == 8


MOVED = [
    (("epochs_run",), 3),
    (("epochs_run",), 0),
    (("epochs_run",), -1),
    (("total_epochs",), 1),
    (("total_epochs",), "three"),
    (("optimizer", "param_groups", 0, "lr"), -1.0),
]
NOT_READ = "a resume does not read it: configuration and tokenizer are those of the base model"
OTHERS = "the adapter once more, for PEFT; a resume reads adapter_model.pt"
MERGED = "the adapter merged into the model, for inference; a resume takes the model that it started from"
NEWLINE = "the newline at the end"
SAME = "weights of the same names and shapes: only a digest can tell them apart"
SETTINGS = {
    f"torchtune_config.yaml {what}": "the settings that a recipe leaves, which it does not read"
    for what in ("missing", "empty", "cut to half", "cut by a byte", "all zeros", "of another step")
}
HARMLESS = {
    "full": {
        **SETTINGS,
        "epoch_1/config.json missing": NOT_READ,
        "epoch_1/config.json cut by a byte": NEWLINE,
        "epoch_1/generation_config.json missing": NOT_READ,
        "epoch_1/generation_config.json cut by a byte": NEWLINE,
        "epoch_1/model.safetensors.index.json missing": "checkpoint_files names the shards, and their names say how many there are",
        "epoch_1/model-00001-of-00002.safetensors of another step": SAME,
        "epoch_1/model-00002-of-00002.safetensors of another step": SAME,
    },
    "adapter": {
        **SETTINGS,
        "epoch_0/config.json missing": NOT_READ,
        "epoch_0/config.json cut by a byte": NEWLINE,
        "epoch_0/generation_config.json missing": NOT_READ,
        "epoch_0/generation_config.json cut by a byte": NEWLINE,
        "epoch_0/adapter_config.json missing": OTHERS,
        "epoch_0/adapter_model.safetensors missing": OTHERS,
        "epoch_0/model.safetensors.index.json missing": MERGED,
        "epoch_0/model-00001-of-00002.safetensors missing": MERGED,
        "epoch_0/model-00001-of-00002.safetensors of another step": MERGED,
        "epoch_0/model-00002-of-00002.safetensors missing": MERGED,
        "epoch_0/model-00002-of-00002.safetensors of another step": MERGED,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["full", "adapter"])
def test_each_damage_is_found(run, copied, tmp_path, survived):
    source = copied(run)
    if run == "full":
        shutil.rmtree(source / "epoch_0")  # which a resume does not read
    damages = [*damages_of(source, FIXTURES / "ended"), *(torch_value(STATE, *moved) for moved in MOVED)]
    survey = survey_of(source, damages, tmp_path / "work")
    survived(survey, HARMLESS[run])
    assert len(survey.killed) == len(damages) - len(HARMLESS[run])

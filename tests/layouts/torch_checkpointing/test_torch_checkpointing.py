"""What torch_checkpointing writes, in fixtures that `make fixtures` made with it: silent when clean, each damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

FIXTURES = Path(__file__).parent / "fixtures"
SAVES = ("plain/step-2", "plain/step-4", "sharded/step-2", "sharded/step-4")
ITEMS = ("model", "optimizer", "lr_scheduler", "dataloader", "train_state")


@pytest.fixture
def copied(tmp_path):
    """`copied("plain")`: a run that a test may damage."""
    return lambda run: Path(shutil.copytree(FIXTURES / run, tmp_path / run))


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


@pytest.mark.parametrize("save", SAVES)
def test_what_it_writes_passes_in_strict_mode(save):
    for ruleset in ("default", "ci", "deep", "inference"):
        report = verify(FIXTURES / save, ruleset=ruleset, strict=True)
        assert report.layout.name == "torch-checkpointing"
        assert (report.passed, report.findings) == (True, []), said(report)


@pytest.mark.parametrize("run", ["plain", "sharded"])
def test_the_plan_is_what_a_load_gave(run):
    seen = json.loads((FIXTURES / "resumed.json").read_text())[run]
    found = inspect(FIXTURES / run / "step-4")
    assert found.resume.from_update == found.optimizer.updates == seen["step"] == seen["updates"]
    assert found.scheduler.last_epoch == seen["last_epoch"]
    assert found.resume.sentence == "training continues after step 4, with the data where its data loader was"
    assert found.weights.parameters == 64


class TestRanks:
    @pytest.mark.parametrize("item", ITEMS)
    def test_a_file_of_one_rank_is_missing(self, item, copied):
        save = copied("sharded") / "step-4"
        (save / f"{item}_1.pt").unlink()
        assert the(verify(save), "ranks/missing-file").place.path == f"{item}_1.pt"

    def test_a_whole_rank_is_missing(self, copied):
        """By the number of ranks that share the data."""
        save = copied("sharded") / "step-4"
        for item in ITEMS:
            (save / f"{item}_1.pt").unlink()
        found = [f.place.path for f in verify(save).findings if f.rule == "ranks/missing-file"]
        assert found == [f"{item}_1.pt" for item in ITEMS]

    @pytest.mark.parametrize("item", ITEMS)
    def test_an_item_of_all_ranks_is_missing(self, item, copied):
        save = copied("sharded") / "step-4"
        for rank in (0, 1):
            (save / f"{item}_{rank}.pt").unlink()
        report = verify(save)
        assert report.layout.name == "torch-checkpointing"
        if item != "train_state":
            assert the(report, "files/missing-required").place.path == f"{item}_0.pt"
        assert not report.passed


def test_shards_without_metadata(copied):
    save = copied("sharded") / "step-4"
    (save / "metadata.pkl").unlink()
    found = the(verify(save), "files/missing-required")
    assert (found.place.path, found.severity) == ("metadata.pkl", "warning")
    assert "the shards can't be loaded on another number of ranks" in found.message


def test_models_that_a_script_numbers_by_epochs_are_not_ranks(tmp_path):
    for epoch in (0, 1, 5):
        for item in ("model", "optimizer", "lr_scheduler"):
            torch.save({"w": torch.ones(2)}, tmp_path / f"{item}_{epoch}.pt")
    assert verify(tmp_path).layout.name != "torch-checkpointing"


class TestStaging:
    def test_a_save_that_was_never_renamed_beside_an_older_one_of_its_name(self, copied):
        run = copied("plain")
        shutil.copytree(run / "step-4", run / "tmp_step-4")
        assert "tmp_step-4" in the(verify(run / "step-4"), "files/staging-leftover").message

    def test_one_that_crashed_holds_nothing(self, copied):
        run = copied("plain")
        for path in (run / "step-4").iterdir():
            path.write_bytes(b"")
        (run / "step-4").rename(run / "tmp_step-4")
        report = verify(run / "tmp_step-4")
        assert report.layout.name == "torch-checkpointing"
        assert len([f for f in report.findings if f.rule == "files/empty"]) == 10


MOVED = [
    ("train_state_0.pt", ("step",), 400),
    ("train_state_0.pt", ("step",), -1),
    ("train_state_1.pt", ("step",), 3),
    ("optimizer_0.pt", ("state.0.weight.step",), torch.tensor(40.0)),
    ("optimizer_1.pt", ("state.0.weight.step",), torch.tensor(40.0)),
    ("lr_scheduler_0.pt", ("last_epoch",), 40),
    ("lr_scheduler_1.pt", ("last_epoch",), 40),
]
SAME = "weights of the same names and shapes: only a digest can tell them apart"
POSITION = "what a data loader keeps is the script's own affair"
EITHER = {f"model_{rank}.pt of another step": SAME for rank in (0, 1)} | {
    f"dataloader_{rank}.pt of another step": POSITION for rank in (0, 1)
}
HARMLESS = {
    "plain": EITHER,
    "sharded": EITHER
    | {"metadata.pkl all zeros": "nothing says that it was a pickle; the same number of ranks does not read it"},
}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["plain", "sharded"])
def test_each_damage_is_found(run, copied, tmp_path, survived):
    source = copied(run) / "step-4"
    damages = [*damages_of(source, FIXTURES / run / "step-2")]
    damages += [torch_value(*moved) for moved in MOVED] if run == "plain" else []
    survey = survey_of(source, damages, tmp_path / "work")
    survived(survey, HARMLESS[run])
    assert len(survey.killed) == len(damages) - len(HARMLESS[run])

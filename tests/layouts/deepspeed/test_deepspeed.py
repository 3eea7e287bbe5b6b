"""What DeepSpeed writes, in fixtures that `make fixtures` made with it: silent when clean, each damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

FIXTURES = Path(__file__).parent / "fixtures"
SAVES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.glob("*/*") if path.is_dir())
MODEL = "mp_rank_00_model_states.pt"
BUFFERS = ("num_batches_tracked", "running_mean", "running_var")
PARTITION = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"


@pytest.fixture
def copied(tmp_path):
    """`copied("zero2")`: a save directory that a test may damage."""

    def copy(variant: str) -> Path:
        return Path(shutil.copytree(FIXTURES / variant, tmp_path / variant))

    return copy


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


@pytest.mark.parametrize("save", SAVES)
def test_what_save_checkpoint_writes_passes_in_strict_mode(save):
    report = verify(FIXTURES / save, ruleset="deep", strict=True)
    assert report.layout.name == "deepspeed"
    assert (report.passed, report.findings) == (True, []), said(report)
    assert verify(FIXTURES / save, ruleset="ci").passed


def test_every_variant_is_there():
    variants = "bf16 frozen moe named pipeline universal zero0 zero1 zero2 zero3"
    assert {save.partition("/")[0] for save in SAVES} == set(variants.split())


@pytest.mark.parametrize("variant", ["zero0", "zero1", "zero2", "zero3", "frozen", "bf16", "moe", "pipeline", "named"])
def test_the_plan_is_what_load_checkpoint_does(variant):
    seen = json.loads((FIXTURES / "resumed.json").read_text())[variant]
    inspected = inspect(FIXTURES / variant / seen["path"].partition("/")[0])
    assert seen["global_steps"] - seen["skipped_steps"] == inspected.resume.from_update == 4
    assert seen["client_state"] == {"epoch": 1, "step_in_epoch": 0}
    assert inspected.progress.notes == ("the script's client_state says epoch 1, step_in_epoch 0",)
    assert "it skips no data and starts no epoch" in inspected.resume.sentence
    assert inspected.optimizer.lrs[0] == pytest.approx(seen["lr"][0])


def test_signs_and_weights():
    inspected = inspect(FIXTURES / "zero3" / "global_step4")
    assert inspected.layout.signs == (PARTITION.format(0).replace("optim", "model"), PARTITION.format(0))
    assert inspected.weights.parameters == 69 + 13  # and BatchNorm's statistics


HARMLESS = {
    "zero0": {
        f"{MODEL} missing": "nothing is left, and files/missing-checkpoint says that the directory is empty",
        f"{MODEL} of another step": "the whole save is in it; progress/name-mismatch names the directory",
        f"{MODEL}: mp_world_size = 2": "the finding names the file of the second rank, which is not there",
    },
    "pipeline": {
        "layer_01-model_states.pt missing": "optimizer/param-mismatch finds it; how many layers there are is on no record",
    },
    "universal": {
        f"zero/1.{name}/fp32.pt missing": "a buffer, which the model states hold as well" for name in BUFFERS
    },
}


def values_of(variant):
    """Counters moved, where their file can be loaded without DeepSpeed."""
    if variant != "zero0":
        return []
    return [
        torch_value(MODEL, ("global_steps",), 7),
        torch_value(MODEL, ("skipped_steps",), 9),
        torch_value(MODEL, ("global_samples",), 1),
        torch_value(MODEL, ("lr_scheduler", "last_batch_iteration"), 5),
        torch_value(MODEL, ("optimizer", "state", 0, "step"), torch.tensor(9.0)),
        torch_value(MODEL, ("optimizer", "param_groups", 0, "lr"), -1.0),
        torch_value(MODEL, ("mp_world_size",), 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted({save.partition("/")[0] for save in SAVES}))
def test_each_damage_is_found(variant, tmp_path, survived):
    save, *later = sorted(path for path in (FIXTURES / variant).iterdir() if path.is_dir())
    damages = [*damages_of(save, *later), *values_of(variant)]
    survey = survey_of(save, damages, tmp_path)
    survived(survey, HARMLESS.get(variant, {}))
    assert len(survey.killed) >= len(damages) - 3


class TestRanks:
    def test_a_partition_that_is_missing(self, copied):
        save = copied("zero2") / "global_step4"
        (save / PARTITION.format(1)).unlink()
        found = the(verify(save), "ranks/missing-file")
        assert found.place.path == PARTITION.format(1)
        assert found.data == {"missing": [1], "world_size": 2}

    def test_a_partition_too_many(self, copied):
        save = copied("zero3") / "global_step4"
        shutil.copy(save / PARTITION.format(1), save / PARTITION.format(2))
        found = the(verify(save), "ranks/world-size")
        assert (found.place.path, found.data) == (PARTITION.format(2), {"beyond": [2], "world_size": 2})

    @pytest.mark.parametrize("path", [PARTITION.format(1), PARTITION.format(1).replace("optim", "model")])
    def test_a_file_of_another_step(self, copied, path):
        saves = copied("zero3")
        shutil.copy(saves / "global_step2" / path, saves / "global_step4" / path)
        found = the(verify(saves / "global_step4"), "ranks/mixed-steps")
        assert found.data == {"steps": {"2": 1, "4": 3}}
        assert found.place.path == path

    def test_an_expert_that_is_missing(self, copied):
        save = copied("moe") / "global_step4"
        (save / "layer_0_expert_1_mp_rank_00_model_states.pt").unlink()
        found = the(verify(save), "ranks/missing-file")
        assert found.place.path == "layer_0_expert_1_mp_rank_00_model_states.pt"


class TestFlatGroups:
    def test_a_partition_of_another_model(self, copied):
        """`frozen` trains fewer parameters than `zero2`."""
        save = copied("zero2") / "global_step4"
        for rank in (0, 1):
            shutil.copy(FIXTURES / "frozen" / "global_step4" / PARTITION.format(rank), save / PARTITION.format(rank))
        found = the(verify(save), "optimizer/flat-group-numel")
        assert found.place.path == PARTITION.format(0)
        assert found.data["have"] == 33
        assert found.data["least"] == 69


class TestPointers:
    def test_latest_leads_to_nowhere(self, copied):
        saves = copied("zero2")
        (saves / "latest").write_text("global_step9")
        found = the(verify(saves / "global_step4"), "files/dangling-pointer")
        assert (found.place.path, found.severity.value, found.data) == (
            "../latest",
            "error",
            {"target": "global_step9"},
        )

    def test_latest_is_empty(self, copied):
        saves = copied("zero2")
        (saves / "latest").write_text("")
        assert the(verify(saves / "global_step4"), "files/dangling-pointer").severity.value == "error"

    def test_latest_is_older(self, copied):
        saves = copied("zero2")
        (saves / "latest").write_text("global_step2")
        found = the(verify(saves / "global_step4"), "files/stale-pointer")
        assert found.data == {"target": "global_step2", "newer": "global_step4"}
        assert not verify(saves / "global_step2").findings

    def test_without_latest_a_resume_starts_from_nothing(self, copied):
        saves = copied("zero2")
        (saves / "latest").unlink()
        (found,) = verify(saves / "global_step4").findings
        assert (found.rule, found.severity.value) == ("files/dangling-pointer", "warning")
        assert "training starts from nothing" in found.message

    def test_a_tag_of_any_name_is_found_from_above(self, copied):
        saves = copied("named")
        report = verify(saves, strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("deepspeed", True, []), said(report)
        (saves / "best" / PARTITION.format(1)).unlink()
        assert the(verify(saves), "ranks/missing-file").place.path == f"best/{PARTITION.format(1)}"


def test_inside_a_trainers_checkpoint_it_stays_silent(tmp_path):
    """`checkpoint-4/global_step4` beside trainer_state.json is the Trainer's."""
    shutil.copytree(FIXTURES / "zero2", tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(json.dumps({"global_step": 4, "log_history": []}))
    assert verify(tmp_path / "checkpoint-4").layout.name != "deepspeed"

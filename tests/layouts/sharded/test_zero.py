"""DeepSpeed inside Trainer and `save_state` checkpoints, in fixtures by the real libraries: silent when clean, each damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ckpt_rules import inspect, verify
from ckpt_rules.opening import checkpoint_at
from ckpt_rules_transformers.layout import TransformersTrainer
from tests.layouts.killing import damages_of, json_value, said, survey_of, torch_value

FIXTURES = Path(__file__).parent / "fixtures"
SAVES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.glob("*/*") if path.is_dir())
MODEL, PARTITION = "mp_rank_00_model_states.pt", "zero_pp_rank_{}_mp_rank_00_optim_states.pt"


@pytest.fixture
def copied(tmp_path):
    """`copied("trainer-zero2/checkpoint-2")`: a save that a test may damage, with the same name."""

    def copy(save: str) -> Path:
        return Path(shutil.copytree(FIXTURES / save, tmp_path / save))

    return copy


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


def seen(variant):
    return json.loads((FIXTURES / "resumed.json").read_text())[variant]


@pytest.mark.parametrize("save", SAVES)
def test_a_clean_save_passes_in_strict_mode(save):
    report = verify(FIXTURES / save, ruleset="deep", strict=True)
    assert report.layout.name == ("transformers-trainer" if save.startswith("trainer") else "accelerate")
    assert (report.passed, report.findings) == (True, []), said(report)


def test_every_variant_is_there():
    stages = "trainer-zero1-scheduled trainer-zero2 trainer-zero3 trainer-zero3-gathered"
    assert {save.partition("/")[0] for save in SAVES} == {
        *stages.split(), "accelerate-zero0-scheduled", "accelerate-zero2", "accelerate-zero3",
    }  # fmt: skip


@pytest.mark.parametrize("save", [save for save in SAVES if save.startswith("trainer")])
def test_the_plan_is_what_the_trainer_did(save):
    variant, _, name = save.partition("/")
    did, inspected = seen(variant), inspect(FIXTURES / save)
    plan, resumed = inspected.resume, did["resumed"][name]
    start = (plan.epoch - 1) * inspected.progress.total_batches + plan.skipped
    assert resumed == did["unbroken"][start:]
    assert resumed[0]["global_step"] == plan.from_update == inspected.progress.global_step
    assert resumed[0]["engine_steps"] == inspected.progress.expected_updates == inspected.optimizer.updates
    assert inspected.optimizer.lrs[0] == pytest.approx(resumed[0]["lr"])


@pytest.mark.parametrize("variant", ["zero0-scheduled", "zero2", "zero3"])
def test_what_load_state_restored_is_what_is_read(variant):
    did, inspected = seen(f"accelerate-{variant}"), inspect(FIXTURES / f"accelerate-{variant}" / "mid")
    assert inspected.progress.global_step == inspected.resume.from_update == did["engine_steps"] == 2
    assert inspected.optimizer.lrs[0] == pytest.approx(did["lr"])
    assert "The script has to set the epoch and skip batches itself" in inspected.resume.sentence
    assert did["resumed"] == did["unbroken"][inspected.resume.skipped :]


def test_weights_without_a_gathered_model_are_known_by_their_shapes():
    """ZeRO-3 writes a model.safetensors where it is told to, and only then."""
    gathered, apart = (inspect(FIXTURES / f"trainer-{v}" / "checkpoint-2") for v in ("zero3-gathered", "zero3"))
    assert gathered.weights.files == ("model.safetensors",)
    assert apart.weights.files == ("global_step2/zero_pp_rank_0_mp_rank_00_model_states.pt",)
    assert gathered.weights.parameters == apart.weights.parameters


def test_master_copies_are_found():
    checkpoint = checkpoint_at(FIXTURES / "trainer-zero2" / "checkpoint-2", [TransformersTrainer()])
    assert len(checkpoint.masters) == len(checkpoint.weights.tensors) == 12


class TestLatest:
    def test_missing(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        (checkpoint / "latest").unlink()
        found = the(verify(checkpoint), "files/missing-required")
        assert found.place.path == "latest"
        assert 'the Trainer stops with "failed to resume from checkpoint"' in found.message

    def test_leads_to_nowhere(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        (checkpoint / "latest").write_text("global_step9")
        found = the(verify(checkpoint), "files/dangling-pointer")
        assert (found.place.path, found.severity.value, found.data) == ("latest", "error", {"target": "global_step9"})

    def test_is_older_than_another_save_beside(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-8")
        shutil.copytree(FIXTURES / "trainer-zero2/checkpoint-2/global_step2", checkpoint / "global_step2")
        assert verify(checkpoint).passed
        (checkpoint / "latest").write_text("global_step2")
        report = verify(checkpoint)
        assert the(report, "files/stale-pointer").data == {"target": "global_step2", "newer": "global_step8"}
        assert the(report, "optimizer/step-drift").data["updates"] == 2

    def test_is_not_read_by_load_state(self, copied):
        checkpoint = copied("accelerate-zero2/mid")
        (checkpoint / "latest").write_text("elsewhere")
        report = verify(checkpoint, strict=True)
        assert (report.passed, the(report, "files/dangling-pointer").severity.value) == (True, "info")


class TestMissing:
    def test_the_whole_save(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        shutil.rmtree(checkpoint / "global_step2")
        report = verify(checkpoint)
        assert the(report, "files/missing-required").place.path == "global_step2/*"
        assert "Can't find a valid checkpoint" in the(report, "files/missing-required").message

    def test_the_whole_save_of_save_state(self, copied):
        checkpoint = copied("accelerate-zero2/mid")
        shutil.rmtree(checkpoint / "pytorch_model")
        report = verify(checkpoint)
        assert report.layout.name == "accelerate"
        assert the(report, "files/missing-required").place.path == f"pytorch_model/{MODEL}"

    @pytest.mark.parametrize("save", ["trainer-zero3/checkpoint-2/global_step2", "accelerate-zero3/mid/pytorch_model"])
    @pytest.mark.parametrize("rank", [0, 1])
    def test_a_partition(self, copied, save, rank):
        above, _, folder = save.rpartition("/")
        checkpoint = copied(above)
        (checkpoint / folder / PARTITION.format(rank)).unlink()
        found = the(verify(checkpoint), "ranks/missing-file")
        assert found.place.path == f"{folder}/{PARTITION.format(rank)}"
        assert found.data == {"missing": [rank], "world_size": 2}

    def test_random_numbers_of_the_last_rank(self, copied):
        for save, name in (
            ("trainer-zero2/checkpoint-2", "rng_state_1.pth"),
            ("accelerate-zero2/mid", "random_states_1.pkl"),
        ):
            checkpoint = copied(save)
            (checkpoint / name).unlink()
            assert the(verify(checkpoint), "ranks/missing-file").place.path == name

    def test_the_scheduler_where_deepspeed_keeps_none(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        (checkpoint / "scheduler.pt").unlink()
        found = the(verify(checkpoint), "files/missing-required")
        assert (found.place.path, "FileNotFoundError" in found.message) == ("scheduler.pt", True)
        assert not (FIXTURES / "trainer-zero1-scheduled/checkpoint-2/scheduler.pt").exists()
        assert inspect(FIXTURES / "trainer-zero1-scheduled/checkpoint-2").scheduler is not None


class TestCounters:
    def test_deepspeed_and_the_trainer_disagree(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        torch_value(f"global_step2/{MODEL}", ("global_steps",), 9).apply(checkpoint)
        found = [f for f in verify(checkpoint).findings if f.rule == "progress/counters-disagree"]
        assert f"global_steps in global_step2/{MODEL} is 9, but global_step in trainer_state.json is 2" in {
            f.message for f in found
        }

    def test_updates_that_overflowed_are_not_due(self, copied):
        checkpoint = copied("trainer-zero2/checkpoint-2")
        torch_value(f"global_step2/{MODEL}", ("skipped_steps",), 1).apply(checkpoint)
        found = the(verify(checkpoint), "optimizer/step-drift")
        assert (found.data["updates"], found.data["expected"]) == (2, 1)

    def test_the_save_of_another_step(self, copied):
        checkpoint = copied("trainer-zero3/checkpoint-2")
        shutil.rmtree(checkpoint / "global_step2")
        shutil.copytree(FIXTURES / "trainer-zero3/checkpoint-8/global_step8", checkpoint / "global_step2")
        assert the(verify(checkpoint), "optimizer/step-drift").data["updates"] == 8

    @pytest.mark.parametrize(
        ("variant", "later"), [("trainer-zero3/checkpoint-{}/global_step{}", "8"), ("accelerate-zero3", "4")]
    )
    def test_a_partition_of_another_step(self, copied, variant, later):
        own, other = (
            (variant.format(n, n) for n in (2, 8))
            if "{" in variant
            else (f"{variant}/{n}/pytorch_model" for n in ("mid", "end"))
        )
        above, _, folder = own.rpartition("/")
        checkpoint = copied(above)
        shutil.copy(FIXTURES / other / PARTITION.format(1), checkpoint / folder / PARTITION.format(1))
        found = the(verify(checkpoint), "ranks/mixed-steps")
        assert (found.place.path, found.data) == (f"{folder}/{PARTITION.format(1)}", {"steps": {"2": 3, later: 1}})


def test_partitions_of_another_model(copied):
    checkpoint = copied("accelerate-zero2/mid")
    for rank in (0, 1):
        name = PARTITION.format(rank)
        shutil.copy(FIXTURES / "trainer-zero2/checkpoint-2/global_step2" / name, checkpoint / "pytorch_model" / name)
    found = the(verify(checkpoint), "optimizer/flat-group-numel")
    assert (found.place.path, found.data["least"]) == (f"pytorch_model/{PARTITION.format(0)}", 57)


NOT_READ = {
    "config.json missing": "a resume does not read it",
    "config.json cut by a byte": "the byte is a newline",
    "generation_config.json missing": "a resume does not read it",
    "generation_config.json cut by a byte": "the byte is a newline",
    "trainer_state.json cut by a byte": "the byte is a newline",
    "training_args.bin missing": "a resume does not read it",
}
RANDOM = {f"rng_state_{rank}.pth of another step": "random numbers tell no step" for rank in (0, 1)}
OWN = {
    "latest missing": "load_state names the save itself",
    "random_states_0.pkl of another step": "what it counts, batches of one pass over the data, is on no other record",
    "random_states_1.pkl of another step": "what it counts, batches of one pass over the data, is on no other record",
}
HARMLESS = {
    "trainer-zero2": {
        **NOT_READ,
        **RANDOM,
        "model.safetensors missing": "under DeepSpeed a resume does not read it",
        "model.safetensors of another step": "under DeepSpeed a resume does not read it",
    },
    "trainer-zero3": {**NOT_READ, **RANDOM},
    "accelerate-zero2": OWN,
    "accelerate-zero3": OWN,
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", HARMLESS)
def test_each_damage_is_found(variant, tmp_path, survived):
    save, later = sorted((FIXTURES / variant).iterdir(), key=lambda path: path.name.replace("end", "z"))
    damages = list(damages_of(save, later))
    if variant.startswith("trainer"):
        damages += [json_value("trainer_state.json", "global_step", value) for value in (1, 3, "2")]
    survey = survey_of(save, damages, tmp_path)
    survived(survey, HARMLESS[variant])


def test_one_process_alone_is_asked_for_no_other_random_numbers(copied):
    checkpoint = copied("trainer-zero1-scheduled/checkpoint-2")
    torch_value(f"global_step2/{MODEL}", ("dp_world_size",), 1).apply(checkpoint)
    (checkpoint / "global_step2" / PARTITION.format(1)).unlink()
    (checkpoint / "rng_state_1.pth").unlink()
    (checkpoint / "rng_state_0.pth").rename(checkpoint / "rng_state.pth")
    (checkpoint / "training_args.bin").unlink()
    assert {f.place.path for f in verify(checkpoint).findings if f.rule == "ranks/missing-file"} == set()


def test_a_stray_file_called_latest_is_no_sign_of_deepspeed(copied):
    checkpoint = copied("trainer-zero3-gathered/checkpoint-2")
    shutil.rmtree(checkpoint / "global_step2")
    (checkpoint / "latest").write_text("notes")
    assert {f.place.path for f in verify(checkpoint).findings if f.rule == "files/missing-required"} == {"optimizer.pt"}

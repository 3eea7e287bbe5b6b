"""FSDP inside `save_state` and Trainer checkpoints, trained here: silent when clean, read as the libraries load it, each damage found."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ckpt_rules import inspect, verify
from ckpt_rules.opening import checkpoint_at
from ckpt_rules_accelerate.layout import Accelerate
from ckpt_rules_transformers.layout import TransformersTrainer
from tests.layouts.killing import damages_of, json_value, said, survey_of, torch_value

SCRIPT = "sharded/fsdp.py"
ACCELERATE = [
    f"accelerate/{variant}/{save}" for variant in ("sharded", "full", "two", "ranks") for save in ("mid", "end")
]
TRAINER = [f"trainer/{variant}/checkpoint-{step}" for variant in ("sharded", "full", "lora") for step in (2, 4, 8)]
NUMEL = 5 * 6 + 6 + 6 * 3 + 3

pytestmark = pytest.mark.slow


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


@pytest.mark.parametrize("save", [*ACCELERATE, *TRAINER])
def test_a_clean_save_passes_in_strict_mode(made, save):
    report = verify(made(SCRIPT) / save, ruleset="deep", strict=True)
    assert report.layout.name == ("accelerate" if save in ACCELERATE else "transformers-trainer")
    assert (report.passed, report.findings) == (True, []), said(report)


def seen(made, variant):
    return json.loads((made(SCRIPT) / "resumed.json").read_text())[variant]


@pytest.mark.parametrize("variant", ["sharded", "full", "ranks"])
def test_what_load_state_restored_is_what_is_read(made, variant):
    did, inspected = seen(made, f"accelerate/{variant}"), inspect(made(SCRIPT) / "accelerate" / variant / "mid")
    assert inspected.optimizer.updates == inspected.resume.from_update == did["updates"] == 4
    assert inspected.optimizer.lrs == (did["lr"],)
    assert inspected.scheduler.last_epoch == did["last_epoch"] == 8  # once for each process
    assert inspected.weights.parameters == NUMEL
    assert "The script has to set the epoch and skip batches itself" in inspected.resume.sentence
    assert did["resumed"] == did["unbroken"][inspected.resume.skipped :]


@pytest.mark.parametrize("save", ["checkpoint-2", "checkpoint-8"])
@pytest.mark.parametrize("variant", ["sharded", "full"])
def test_the_plan_is_what_the_trainer_did(made, variant, save):
    did, inspected = seen(made, f"trainer/{variant}"), inspect(made(SCRIPT) / "trainer" / variant / save)
    resumed, start = did["resumed"][save], start_of(inspected, did["unbroken"])
    assert resumed == did["unbroken"][start:]
    assert resumed[0]["global_step"] == resumed[0]["updates"] == inspected.resume.from_update
    assert inspected.optimizer.updates == inspected.resume.from_update
    assert inspected.optimizer.lrs[0] == resumed[0]["lr"]


def start_of(inspected, unbroken):
    """The batch of an unbroken run with which the plan continues: by epoch and batches to skip, or else by the update."""
    plan = inspected.resume
    if plan.epoch is None:
        return next(index for index, batch in enumerate(unbroken) if batch["global_step"] == plan.from_update)
    return (plan.epoch - 1) * inspected.progress.total_batches + plan.skipped


def test_shards_come_without_arguments_and_the_plan_does_not_guess_the_batch(made):
    """Without training_args.bin nobody knows how many batches make an update."""
    sharded, full = (inspect(made(SCRIPT) / "trainer" / variant / "checkpoint-2") for variant in ("sharded", "full"))
    assert sharded.resume.sentence.endswith("the new run's batch size tells which epoch and batch that is")
    assert (full.resume.epoch, full.resume.skipped) == (1, 4)


def test_full_shapes_of_every_form(made):
    shapes = {
        variant: {n: t.shape for n, t in weights(made(SCRIPT) / "accelerate" / variant / "mid", Accelerate()).items()}
        for variant in ("sharded", "full", "ranks")
    }
    whole = {"0.weight": (6, 5), "0.bias": (6,), "1.weight": (3, 6), "1.bias": (3,)}
    assert shapes == dict.fromkeys(shapes, whole)


def test_the_second_model_has_names_of_its_own(made):
    found = weights(made(SCRIPT) / "accelerate" / "two" / "mid", Accelerate())
    assert len(found) == 8
    assert (found["0.weight"].shape, found["pytorch_model_fsdp_1.0.weight"].shape) == ((6, 5), (4, 5))


def test_an_adapter_is_all_that_is_there(made):
    found = weights(made(SCRIPT) / "trainer" / "lora" / "checkpoint-2", TransformersTrainer())
    assert len(found) == 4
    assert all("lora_" in name for name in found)


def weights(path, layout):
    return checkpoint_at(path, [layout]).weights.tensors


MISSING = {
    ("accelerate/sharded/mid", "optimizer_0"): ("optimizer_0/.metadata", "load_state can't load the optimizer"),
    ("accelerate/sharded/mid", "pytorch_model_fsdp_0"): ("pytorch_model_fsdp_0/.metadata", "can't load the model of FSDP"),
    ("accelerate/sharded/mid", "optimizer_0/.metadata"): ("optimizer_0/.metadata", "the optimizer was never saved as a whole"),
    ("accelerate/full/mid", "optimizer.bin"): ("optimizer.bin", "can't load the optimizer"),
    ("accelerate/two/mid", "optimizer_0"): ("optimizer_0/.metadata", "can't load the optimizer"),
    ("accelerate/two/mid", "pytorch_model_fsdp_1"): ("pytorch_model_fsdp_1/.metadata", "can't load the model"),
    ("trainer/sharded/checkpoint-2", "optimizer_0"): ("optimizer_0/.metadata", "ignores scheduler.pt as well"),
    ("trainer/sharded/checkpoint-2", "scheduler.pt"): ("scheduler.pt", "ignores FSDP's optimizer as well"),
    ("trainer/sharded/checkpoint-2", "pytorch_model_fsdp_0"): ("pytorch_model_fsdp_0/.metadata", "and stops without it"),
    ("trainer/sharded/checkpoint-2", "pytorch_model_fsdp_0/.metadata"): (
        "pytorch_model_fsdp_0/.metadata", "a resume stops with CheckpointException",
    ),
    ("trainer/full/checkpoint-2", "optimizer.bin"): ("optimizer.bin", "ignores scheduler.pt as well"),
    ("trainer/full/checkpoint-2", "pytorch_model_fsdp.bin"): ("pytorch_model_fsdp.bin", "and stops without it"),
}  # fmt: skip


@pytest.mark.parametrize(("save", "gone"), MISSING)
def test_what_a_resume_does_without_a_part(copied, save, gone):
    checkpoint = copied(SCRIPT, save)
    shutil.rmtree(checkpoint / gone) if (checkpoint / gone).is_dir() else (checkpoint / gone).unlink()
    path, words = MISSING[save, gone]
    found = the(verify(checkpoint), "files/missing-required")
    assert found.place.path == path
    assert words in found.message


def test_without_its_state_it_is_still_the_trainers(copied):
    for variant in ("sharded", "full"):
        checkpoint = copied(SCRIPT, f"trainer/{variant}/checkpoint-2")
        (checkpoint / "trainer_state.json").unlink()
        report = verify(checkpoint)
        assert (report.layout.name, the(report, "files/commit-marker").place.path) == (
            "transformers-trainer", "trainer_state.json",
        )  # fmt: skip
        shutil.rmtree(checkpoint)


def test_a_model_without_tensors_crashes_no_rule(copied):
    checkpoint = copied(SCRIPT, "trainer/full/checkpoint-2")
    torch.save({}, checkpoint / "pytorch_model_fsdp.bin")
    assert [o.rule for o in verify(checkpoint).outcomes if o.crash] == []


def test_a_piece_that_is_missing(copied):
    checkpoint = copied(SCRIPT, "accelerate/ranks/mid")
    (checkpoint / "optimizer_0_rank1.bin").unlink()
    found = the(verify(checkpoint), "ranks/missing-file")
    assert (found.place.path, found.severity.value) == ("optimizer_0_rank1.bin", "error")
    assert found.data == {"missing": [1], "world_size": 2}


def test_pieces_of_a_rank_without_random_numbers(copied):
    checkpoint = copied(SCRIPT, "accelerate/ranks/mid")
    (checkpoint / "random_states_1.pkl").unlink()
    found = the(verify(checkpoint), "ranks/missing-file")
    assert (found.place.path, found.severity.value) == ("random_states_1.pkl", "warning")


def test_the_trainer_does_not_look_for_pieces(made, copied):
    checkpoint = copied(SCRIPT, "trainer/sharded/checkpoint-2")
    shutil.rmtree(checkpoint / "pytorch_model_fsdp_0")
    pieces = made(SCRIPT) / "accelerate" / "ranks" / "mid"
    for name in ("pytorch_model_fsdp_0_rank0.bin", "pytorch_model_fsdp_0_rank1.bin"):
        shutil.copy2(pieces / name, checkpoint / name)
    assert "one file per rank" in the(verify(checkpoint), "files/missing-required").message


def test_a_piece_of_another_step(made, copied):
    checkpoint = copied(SCRIPT, "accelerate/ranks/mid")
    later = made(SCRIPT) / "accelerate" / "ranks" / "end"
    shutil.copy2(later / "optimizer_0_rank1.bin", checkpoint / "optimizer_0_rank1.bin")
    assert the(verify(checkpoint), "ranks/mixed-steps").data == {"steps": {"4": 1, "8": 1}}


class TestOfAnotherSave:
    """A whole directory taken from elsewhere: each by itself is sound."""

    def test_the_optimizer_of_another_step(self, made, copied):
        checkpoint = copied(SCRIPT, "trainer/sharded/checkpoint-2")
        replace(made(SCRIPT) / "trainer/sharded/checkpoint-4/optimizer_0", checkpoint / "optimizer_0")
        found = the(verify(checkpoint), "optimizer/step-drift")
        assert found.place.path == "optimizer_0/.metadata"
        assert (found.data["updates"], found.data["expected"]) == (4, 2)

    def test_the_optimizer_of_another_model(self, made, copied):
        checkpoint = copied(SCRIPT, "trainer/lora/checkpoint-2")
        replace(made(SCRIPT) / "trainer/sharded/checkpoint-2/optimizer_0", checkpoint / "optimizer_0")
        assert the(verify(checkpoint), "optimizer/param-mismatch").place.path == "optimizer_0/.metadata"

    def test_the_optimizer_of_another_step_in_save_state(self, made, copied):
        """Nothing else counts updates, but the scheduler has set another rate."""
        checkpoint = copied(SCRIPT, "accelerate/sharded/end")
        replace(made(SCRIPT) / "accelerate/sharded/mid/optimizer_0", checkpoint / "optimizer_0")
        found = the(verify(checkpoint), "scheduler/lr-mismatch")
        assert "to 0.000125, but the optimizer has 0.0005" in found.message


def replace(source, target):
    shutil.rmtree(target)
    shutil.copytree(source, target)


SAME = "same names, shapes and lengths: only a digest could tell"
SHARDED_HARMLESS = {
    "optimizer_0/.metadata of another step": "it says the same of files of the same lengths",
    "optimizer_0/__0_0.distcp of another step": "ranks/mixed-steps names the other rank's file: which of two is right is not known",
    "pytorch_model_fsdp_0/.metadata of another step": "it says the same of files of the same lengths",
    "pytorch_model_fsdp_0/__0_0.distcp of another step": SAME,
    "pytorch_model_fsdp_0/__1_0.distcp of another step": SAME,
}
HARMLESS = {
    "accelerate/sharded": SHARDED_HARMLESS,
    "accelerate/full": {
        "pytorch_model_fsdp.bin of another step": SAME,
        "random_states_1.pkl missing": "nothing else says how many ranks there were",
    },
    "accelerate/ranks": {f"pytorch_model_fsdp_0_rank{rank}.bin of another step": SAME for rank in (0, 1)},
    "trainer/sharded": {**SHARDED_HARMLESS, "trainer_state.json cut by a byte": "the byte is a newline"},
    "trainer/full": {
        "config.json cut by a byte": "the byte is a newline",
        "config.json missing": "a resume does not read it",
        "generation_config.json cut by a byte": "the byte is a newline",
        "generation_config.json missing": "a resume does not read it",
        "model.safetensors missing": "under FSDP a resume does not read it",
        "model.safetensors of another step": "under FSDP a resume does not read it",
        "pytorch_model_fsdp.bin of another step": SAME,
        "trainer_state.json cut by a byte": "the byte is a newline",
        "training_args.bin missing": "a resume does not read it",
    },
}
COUNTERS = (
    *(json_value("trainer_state.json", "global_step", value) for value in (1, 3, "2")),
    torch_value("scheduler.pt", ("last_epoch",), 1),
)


class TestDamage:
    """Each file missing, empty, cut, zeroed or of another save: found at the right file, or listed."""

    @pytest.mark.parametrize("form", ["sharded", "full", "ranks"])
    def test_in_save_state(self, made, tmp_path, form, survived):
        out = made(SCRIPT) / "accelerate" / form
        survey = survey_of(out / "mid", list(damages_of(out / "mid", out / "end")), tmp_path)
        survived(survey, HARMLESS[f"accelerate/{form}"])

    @pytest.mark.parametrize("form", ["sharded", "full"])
    def test_in_a_trainer_checkpoint(self, made, tmp_path, form, survived):
        run = made(SCRIPT) / "trainer" / form
        damages = [*damages_of(run / "checkpoint-2", run / "checkpoint-4"), *COUNTERS]
        survey = survey_of(run / "checkpoint-2", damages, tmp_path)
        survived(survey, HARMLESS[f"trainer/{form}"])

"""Checkpoints of the transformers Trainer: recognised, silent when clean, resumed where we say, and each damage found."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, json_value, said, survey_of, torch_value
from tests.plugins.safety.hostile import asks_for, with_pickle

TRAIN = "trainer/train.py"
VARIANTS = (
    "plain", "accumulated", "max-steps", "plateau", "no-skip", "resumed-no-skip", "sgd", "adafactor", "bf16", "best", "tied", "frozen",
    "bf16-weights", "lora", "dora", "ddp", "sharded",
)  # fmt: skip
SILENT_INFO = {"progress/finished", "optimizer/moment-dtype"}

pytestmark = pytest.mark.slow


def saves(run):
    return sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_trainer_saves_passes_in_strict_mode(made, variant):
    found = saves(made(TRAIN, variant) / "run")
    assert len(found) >= 2
    # Its script cuts the last weights into shards for every save.
    left_out = ["previous/unchanged"] if variant == "sharded" else []
    for checkpoint in found:
        report = verify(checkpoint, ruleset="deep", exclude=left_out, strict=True)
        assert report.layout.name == "transformers-trainer"
        assert report.passed, said(report)
        assert {f.rule for f in report.findings} <= SILENT_INFO, said(report)


@pytest.mark.parametrize("variant", ["plain", "accumulated", "no-skip"])
def test_the_plan_is_what_the_real_trainer_does(made, variant):
    out = made(TRAIN, variant, "resume")
    record = json.loads((out / "resumed.json").read_text())
    first_run, checked = record["batches"], 0
    for checkpoint in saves(out / "run"):
        done, seen = inspect(checkpoint), record["resumed"][checkpoint.name]
        assert done.resume.from_update == seen["started_at_step"]
        if seen["batches"] == 0:
            assert done.resume.sentence.startswith("nothing is left to train")
            continue
        assert seen["first_step"] == done.resume.from_update + 1
        assert seen["rates"] == [done.optimizer.lrs[0]]
        start = (done.resume.epoch - 1) * done.progress.total_batches + done.resume.skipped
        assert seen["first_batch"] == first_run[start]
        left = len(first_run) - start if variant == "accumulated" else len(first_run) - done.resume.from_update
        assert seen["batches"] == left
        checked += 1
    assert checked >= 4


class TestRecognition:
    """Several signs: a missing file makes a finding, not another layout."""

    def test_inspect_names_the_signs(self, made):
        inspection = inspect(made(TRAIN, "plain") / "run" / "checkpoint-8")
        assert inspection.layout.name == "transformers-trainer"
        assert inspection.layout.signs == (
            "trainer_state.json", "optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin",
        )  # fmt: skip
        assert inspection.progress.global_step == 8
        assert (inspection.progress.epoch, inspection.progress.step, inspection.progress.total_batches) == (1, 8, 11)

    def test_without_its_state_it_is_still_the_trainers(self, copied):
        checkpoint = copied(TRAIN, "plain", "run/checkpoint-8")
        (checkpoint / "trainer_state.json").unlink()
        report = verify(checkpoint)
        assert report.layout.name == "transformers-trainer"
        (marker,) = [f for f in report.findings if f.rule == "files/commit-marker"]
        assert marker.place.path == "trainer_state.json"
        assert "never finished" in marker.message

    def test_a_moved_run_with_stale_paths_is_clean(self, made, tmp_path):
        shutil.copytree(made(TRAIN, "best") / "run", tmp_path / "moved")
        for checkpoint in saves(tmp_path / "moved"):
            assert verify(checkpoint, ruleset="deep", strict=True).passed


class TestWhatIsLostWithoutAWord:
    @pytest.mark.parametrize(("name", "other"), [("optimizer.pt", "scheduler.pt"), ("scheduler.pt", "optimizer.pt")])
    def test_either_of_optimizer_and_scheduler(self, copied, name, other):
        checkpoint = copied(TRAIN, "plain", "run/checkpoint-8")
        (checkpoint / name).unlink()
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path) == ("files/missing-required", name)
        assert f"ignores {other} as well" in found.message

    def test_the_optimizer_of_save_only_model(self, made):
        report = verify(made(TRAIN, "weights-only") / "run" / "checkpoint-8")
        (found,) = [f for f in report.findings if f.severity != "info"]
        assert (found.rule, found.place.path) == ("files/missing-required", "optimizer.pt")
        assert "save_only_model" in found.message
        assert not report.passed

    def test_experts_of_a_model_with_other_names_on_disk(self, made):
        report = verify(made(TRAIN, "mixtral") / "run" / "checkpoint-8")
        (found,) = report.findings
        assert (found.rule, found.place.path) == ("weights/converted-on-save", "model.safetensors")
        assert found.data == {"model_type": "mixtral", "tensors": 29, "parameters": 21}

    def test_the_best_checkpoint_that_was_deleted(self, made, tmp_path):
        shutil.copytree(made(TRAIN, "best") / "run", tmp_path / "run")
        checkpoint = saves(tmp_path / "run")[0]
        state = checkpoint / "trainer_state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "best_model_checkpoint": "run/checkpoint-1"}))
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.key) == ("files/dangling-pointer", "best_model_checkpoint")
        assert found.severity == "warning"

    def test_a_rank_without_random_numbers_is_named(self, copied):
        checkpoint = copied(TRAIN, "ddp", "run/checkpoint-8")
        (checkpoint / "rng_state_1.pth").unlink()
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path, found.severity) == ("ranks/missing-file", "rng_state_1.pth", "info")
        assert found.data == {"missing": [1], "world_size": 2}

    @pytest.mark.parametrize(
        ("processes", "first", "present", "missing"),
        [
            (4, 0, [0, 1], []), (4, 2, [2, 3], []), (16, 8, range(8, 16), []), (2, 1, [1], []), (4, 0, range(4), []),
            (4, 0, [1], [0]), (4, 2, [3], [2]), (16, 8, [8, 9, *range(11, 16)], [10]), (4, 0, [0, 1, 2], [3]), (4, 0, [], [0, 1, 2, 3]),
        ],
    )  # fmt: skip
    def test_the_ranks_of_a_node_that_saves_for_itself(self, copied, processes, first, present, missing):
        """As two nodes of two processes wrote it, with one directory each; the second had no weights, by transformers 5.23."""
        checkpoint = copied(TRAIN, "ddp", "run/checkpoint-8")
        arguments = torch.load(checkpoint / "training_args.bin", weights_only=False)
        arguments.save_on_each_node = True
        values = {"num_processes": processes, "process_index": first, "local_process_index": 0}
        arguments.distributed_state.__dict__ = {**arguments.distributed_state.__dict__, **values}
        torch.save(arguments, checkpoint / "training_args.bin")
        content = (checkpoint / "rng_state_1.pth").read_bytes()
        for path in checkpoint.glob("rng_state_*"):
            path.unlink()
        for rank in present:
            (checkpoint / f"rng_state_{rank}.pth").write_bytes(content)
        found = [f for f in verify(checkpoint).findings if f.rule != "rng/missing"]
        assert [(f.rule, f.data["missing"]) for f in found] == ([("ranks/missing-file", missing)] if missing else [])

    def test_files_of_more_ranks_than_the_arguments_say(self, copied):
        checkpoint = copied(TRAIN, "ddp", "run/checkpoint-8")
        shutil.copy2(checkpoint / "rng_state_1.pth", checkpoint / "rng_state_2.pth")
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path) == ("ranks/world-size", "rng_state_2.pth")

    def test_a_scaler_that_fp16_asks_for(self, copied):
        checkpoint = copied(TRAIN, "plain", "run/checkpoint-8")
        path = checkpoint / "training_args.bin"
        arguments = torch.load(path, weights_only=False)
        arguments.fp16 = True  # no CPU trains in it
        torch.save(arguments, path)
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path, found.severity) == ("scaler/missing", "scaler.pt", "warning")


class TestTheArgumentsOfTheRun:
    """training_args.bin, which no resume reads, and in which scripts keep a class of their own."""

    @pytest.fixture
    def checkpoint(self, copied):
        return copied(TRAIN, "plain", "run/checkpoint-8")

    def test_weights_under_a_name_that_the_trainer_does_not_look_for(self, checkpoint):
        assert verify(checkpoint).findings == []
        (checkpoint / "model.safetensors").rename(checkpoint / "weights.safetensors")
        (found,) = (f for f in verify(checkpoint).findings if f.severity == "error")
        assert (found.rule, found.place.path) == ("files/missing-required", "model.safetensors")
        assert found.message == (
            "model.safetensors (or pytorch_model.bin) is missing: the Trainer does not look for weights.safetensors, and stops "
            'with "Can\'t find a valid checkpoint"'
        )

    def test_a_class_of_the_scripts_own_is_information(self, checkpoint):
        (checkpoint / "training_args.bin").write_bytes(with_pickle(asks_for(("__main__", "TrainingArguments"))))
        report = verify(checkpoint, strict=True)
        (found,) = report.findings
        assert (found.rule, found.place.path, found.severity) == ("pickle/unknown-global", "training_args.bin", "info")
        assert report.passed

    def test_what_runs_code_is_an_error_all_the_same(self, checkpoint):
        (checkpoint / "training_args.bin").write_bytes(with_pickle(asks_for(("os", "system"))))
        assert "pickle/unsafe-global" in {f.rule for f in verify(checkpoint).findings if f.severity == "error"}

    def test_the_same_class_in_what_a_resume_reads_is_a_warning(self, checkpoint):
        (checkpoint / "rng_state.pth").write_bytes(with_pickle(asks_for(("__main__", "TrainingArguments"))))
        found = [f for f in verify(checkpoint).findings if f.rule == "pickle/unknown-global"]
        assert [(f.place.path, f.severity) for f in found] == [("rng_state.pth", "warning")]


HARMLESS = {
    "config.json missing": "a resume does not read it",
    "config.json cut by a byte": "the byte is a newline",
    "generation_config.json missing": "a resume does not read it",
    "generation_config.json cut by a byte": "the byte is a newline",
    "model.safetensors of another step": "same names and shapes: only a digest could tell",
    "trainer_state.json cut by a byte": "the byte is a newline",
    "training_args.bin missing": "a resume does not read it",
    "scheduler.pt: _step_count = 3": "no resume goes by it",
}
LORA_HARMLESS = {
    **{
        f"README.md {what}": "nothing reads it"
        for what in ("missing", "empty", "cut to half", "cut by a byte", "all zeros")
    },
    "adapter_model.safetensors of another step": "same names and shapes: only a digest could tell",
    "trainer_state.json cut by a byte": "the byte is a newline",
    "training_args.bin missing": "a resume does not read it",
}
SHARDS_HARMLESS = {"model.safetensors.index.json cut by a byte": "the byte is a newline"}
COUNTERS = (
    *(json_value("trainer_state.json", "global_step", value) for value in (3, 7, 9, 4000, -1, True, "8", 1.5, None)),
    *(json_value("trainer_state.json", "epoch", value) for value in (2.0, -1.0, "x")),
    *(json_value("trainer_state.json", "max_steps", value) for value in (4, "many")),
    json_value("trainer_state.json", "num_train_epochs", -3),
    json_value("trainer_state.json", "log_history", {}),
    torch_value("scheduler.pt", ("last_epoch",), 7),
    torch_value("scheduler.pt", ("_step_count",), 3),
    torch_value("scheduler.pt", ("_last_lr",), [0.5, 0.5]),
    torch_value("optimizer.pt", ("state",), {}),
    torch_value("optimizer.pt", ("param_groups", 0, "lr"), float("nan")),
)


class TestDamage:
    """Each file missing, empty, cut, zeroed or of another save, each counter moved: found at the right file, or listed."""

    def test_a_plain_checkpoint(self, made, tmp_path, survived):
        run = made(TRAIN, "plain") / "run"
        damages = [*damages_of(run / "checkpoint-8", run / "checkpoint-4"), *COUNTERS]
        survey = survey_of(run / "checkpoint-8", damages, tmp_path)
        survived(survey, HARMLESS)
        assert len(survey.killed) >= 50

    def test_a_checkpoint_of_an_adapter(self, made, tmp_path, survived):
        run = made(TRAIN, "lora") / "run"
        survey = survey_of(run / "checkpoint-8", list(damages_of(run / "checkpoint-8", run / "checkpoint-4")), tmp_path)
        survived(survey, LORA_HARMLESS)
        assert survey.killed["adapter_config.json missing"] == ["files/missing-required"]

    def test_each_shard(self, made, tmp_path, survived):
        run = made(TRAIN, "sharded") / "run"
        shards = [d for d in damages_of(run / "checkpoint-11", run / "checkpoint-22") if d.path.startswith("model")]
        survey = survey_of(run / "checkpoint-11", shards, tmp_path)
        assert len(survey.killed) == 24
        survived(survey, SHARDS_HARMLESS)

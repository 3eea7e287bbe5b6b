"""What Accelerate's save_state writes, and what diffusers builds on it: silent when clean, each damage found."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckpt_rules import inspect, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

TRAIN, DIFFUSE = "accelerate/train.py", "accelerate/diffuse.py"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", ["plain", "ddp", "counted", "unscheduled", "two-models", "pickled"])
@pytest.mark.parametrize("moment", ["mid", "end"])
def test_what_save_state_writes_passes_in_strict_mode(made, variant, moment):
    report = verify(made(TRAIN, variant) / moment, ruleset="deep", strict=True)
    assert report.layout.name == "accelerate"
    assert report.passed, said(report)
    assert not report.findings, said(report)


def test_the_plan_is_what_load_state_does(made):
    out = made(TRAIN, "plain")
    seen, inspected = json.loads((out / "resumed.json").read_text()), inspect(out / "mid")
    assert seen["updates"] == inspected.resume.from_update == 16
    assert seen["lr"] == inspected.optimizer.lrs[0]
    assert seen["resumed"] == seen["unbroken"][inspected.resume.skipped : 12]
    assert "The script has to set the epoch and skip batches itself" in inspected.resume.sentence


def test_two_processes_step_the_scheduler_twice(made):
    inspected = inspect(made(TRAIN, "ddp") / "mid")
    assert (inspected.optimizer.updates, inspected.scheduler.last_epoch) == (10, 20)


def test_what_the_script_registered_is_shown(made):
    notes = inspect(made(TRAIN, "counted") / "mid").progress.notes
    assert notes == ("custom_checkpoint_0.pkl says epoch 1, step 4",)


def test_the_number_in_the_name_counts_saves(made, tmp_path):
    shutil.copytree(made(TRAIN, "plain") / "mid", tmp_path / "checkpoint_250")
    assert verify(tmp_path / "checkpoint_250", ruleset="deep", strict=True).passed


def test_a_scheduler_that_was_registered_and_not_prepared(copied):
    checkpoint = copied(TRAIN, "counted", "mid")
    (checkpoint / "scheduler.bin").rename(checkpoint / "custom_checkpoint_1.pkl")
    report = verify(checkpoint, ruleset="deep", strict=True)
    assert not report.findings, said(report)


def test_a_registered_object_in_the_place_of_the_scheduler(copied):
    checkpoint = copied(TRAIN, "counted", "mid")
    shutil.copy(checkpoint / "custom_checkpoint_0.pkl", checkpoint / "scheduler.bin")
    (found,) = [f for f in verify(checkpoint).findings if f.rule == "scheduler/missing"]
    assert (found.severity, found.place.path) == ("error", "scheduler.bin")
    assert "scheduler.bin holds what custom_checkpoint_0.pkl does (" in found.message
    assert "where the state_dict of a scheduler belongs" in found.message


HARMLESS = {
    "model.safetensors of another step": "same names and shapes: only a digest could tell",
    "custom_checkpoint_0.pkl missing": "how many objects were registered is known to the script alone",
    "custom_checkpoint_0.pkl of another step": "what it counts is known to the script alone",
}

COMPONENT_HARMLESS = {
    "unet/config.json cut by a byte": "the byte is a newline",
    "unet_ema/config.json cut by a byte": "the byte is a newline",
    "unet/diffusion_pytorch_model.safetensors of another step": "same names and shapes: only a digest could tell",
    "unet_ema/diffusion_pytorch_model.safetensors of another step": "same names and shapes: only a digest could tell",
    "unet_ema/config.json of another step": "an average may have begun later than the training",
}


def test_each_damage_is_found(made, tmp_path, survived):
    out = made(TRAIN, "counted")
    values = [
        torch_value("optimizer.bin", ("param_groups", 0, "lr"), -1.0),
        torch_value("scheduler.bin", ("last_epoch",), 3),
        torch_value("scheduler.bin", ("_last_lr",), [0.7]),
    ]
    survey = survey_of(out / "mid", [*damages_of(out / "mid", out / "end"), *values], tmp_path)
    survived(survey, HARMLESS)
    assert len(survey.killed) >= 24


def test_each_rank_is_missed(made, tmp_path, survived):
    survey = survey_of(
        made(TRAIN, "ddp") / "mid",
        [d for d in damages_of(made(TRAIN, "ddp") / "mid") if d.path == "random_states_0.pkl"],
        tmp_path,
    )
    assert survey.killed["random_states_0.pkl missing"] == ["ranks/missing-file"]
    survived(survey, {})


@pytest.mark.parametrize(
    ("present", "missing"),
    [([2, 3], []), (range(8, 16), []), ([2], [0, 1]), ([3], [0, 1, 2]), ([2, 4, 5], [0, 1, 3]), ([1], [0])],
)
def test_the_ranks_of_a_node_that_saves_for_itself(copied, present, missing):
    """With `save_on_each_node` the second of two nodes holds all files of a save, and its own ranks' random states."""
    checkpoint = copied(TRAIN, "ddp", "mid")
    content = (checkpoint / "random_states_1.pkl").read_bytes()
    for path in checkpoint.glob("random_states_*"):
        path.unlink()
    for rank in present:
        (checkpoint / f"random_states_{rank}.pkl").write_bytes(content)
    found = [f for f in verify(checkpoint, strict=True).findings if f.severity != "info"]
    assert [(f.rule, f.data["missing"]) for f in found] == ([("ranks/missing-file", missing)] if missing else [])


def test_simpletuners_ranks_each_have_a_position_in_the_data(copied):
    checkpoint = copied(TRAIN, "ddp", "mid")
    position = {"global_step": 3, "epoch_step": 3, "epoch": 1, "exhausted_backends": [], "repeats": {}}
    (checkpoint / "training_state.json").write_text(json.dumps(position))
    (found,) = verify(checkpoint).findings
    assert (found.severity, found.rule, found.place.path) == (
        "warning",
        "ranks/missing-file",
        "training_state-rank1.json",
    )
    assert found.data["missing"] == [1]
    assert "SimpleTuner starts that rank again at the beginning of its data" in found.message
    (checkpoint / "training_state-rank1.json").write_text(json.dumps(position))
    assert verify(checkpoint, strict=True).findings == []


def test_a_hole_in_the_numbers(copied):
    checkpoint = copied(TRAIN, "two-models", "mid")
    (checkpoint / "optimizer.bin").unlink()
    (found,) = verify(checkpoint).findings
    assert (found.rule, found.place.path) == ("files/missing-required", "optimizer.bin")
    assert "a later one of the optimizer files is there" in found.message


class TestSeveralSchedulers:
    """`two-models` steps a sequence beside AdamW, and a chain beside SGD, which counts no updates."""

    def test_each_is_shown(self, made):
        schedulers = inspect(made(TRAIN, "two-models") / "mid").schedulers
        assert [(s.path, s.kind, s.last_epoch) for s in schedulers] == [
            ("scheduler.bin", "SequentialLR", 16),
            ("scheduler_1.bin", "ChainedScheduler", 16),
        ]

    @pytest.mark.parametrize(
        ("path", "keys", "value", "rule", "place"),
        [
            ("scheduler.bin", ("last_epoch",), 5, "scheduler/step-mismatch", ("scheduler.bin", "last_epoch")),
            (
                "scheduler.bin", ("_schedulers", 1, "last_epoch"), 3,
                "scheduler/step-mismatch", ("scheduler.bin", "_schedulers[1].last_epoch"),
            ),
            (
                "scheduler_1.bin", ("_schedulers", 0, "last_epoch"), 3,
                "scheduler/step-mismatch", ("scheduler_1.bin", "_schedulers[1].last_epoch"),
            ),
            ("scheduler_1.bin", ("_last_lr",), [0.7], "scheduler/lr-mismatch", ("scheduler_1.bin", "_schedulers[1]._last_lr[0]")),
            ("optimizer_1.bin", ("param_groups", 0, "lr"), 0.7, "scheduler/lr-mismatch", ("optimizer_1.bin", "param_groups[0].lr")),
        ],
    )  # fmt: skip
    def test_each_is_compared_with_its_own_optimizer(self, copied, path, keys, value, rule, place):
        checkpoint = copied(TRAIN, "two-models", "mid")
        torch_value(path, keys, value).apply(checkpoint)
        assert [(f.rule, (f.place.path, f.place.key)) for f in verify(checkpoint).findings] == [(rule, place)]


class TestDiffusers:
    @pytest.mark.parametrize("step", [3, 6])
    def test_a_training_state_is_clean_without_a_model_at_its_top(self, made, step):
        report = verify(made(DIFFUSE) / "run" / f"checkpoint-{step}", ruleset="deep", strict=True)
        assert (report.layout.name, report.passed) == ("diffusers-training", True), said(report)
        assert f"continues at update {step + 1}" in report.reason
        assert inspect(made(DIFFUSE) / "run" / f"checkpoint-{step}").weights.files == (
            "unet/diffusion_pytorch_model.safetensors",
        )

    @pytest.mark.parametrize(("run", "step"), [("run", 3), ("run", 6), ("lora", 2), ("lora", 4)])
    def test_the_plan_is_what_the_scripts_do(self, made, run, step):
        seen = json.loads((made(DIFFUSE) / "resumed.json").read_text())[run]
        inspected = inspect(made(DIFFUSE) / run / f"checkpoint-{step}")
        updates, sentence = inspected.resume.from_update, inspected.resume.sentence
        resumed, unbroken = seen[f"checkpoint-{step}"], seen["unbroken"][step:]
        batch, global_step, optimizer, average, lr = resumed[0]
        assert global_step == optimizer == average == updates == step
        assert lr == inspected.optimizer.lrs[0]
        assert [met for _, *met in resumed[: len(unbroken)]] == [met for _, *met in unbroken]
        if run == "run":
            assert (batch, resumed[: len(unbroken)]) == (updates % seen["per_epoch"], unbroken)
            assert "those for unconditional images and InstructPix2Pix skip the batches already trained" in sentence
        else:
            assert batch == 0
            assert "most scripts repeat the current epoch from its first batch" in sentence

    def test_another_name_is_another_step(self, made, tmp_path):
        shutil.copytree(made(DIFFUSE) / "run" / "checkpoint-3", tmp_path / "checkpoint-40")
        found = verify(tmp_path / "checkpoint-40").findings
        (drift,) = [f for f in found if f.rule == "optimizer/step-drift"]
        assert drift.data == {"updates": 3, "expected": 40, "drift": -37, "batches": None}

    def test_damage_to_a_component(self, made, tmp_path, survived):
        run = made(DIFFUSE) / "run"
        damages = [d for d in damages_of(run / "checkpoint-3", run / "checkpoint-6") if d.path.startswith("unet")]
        survey = survey_of(run / "checkpoint-3", damages, tmp_path)
        survived(survey, COMPONENT_HARMLESS)

    @pytest.mark.parametrize("step", [2, 4])
    @pytest.mark.parametrize("ruleset", ["deep", "inference"])
    def test_an_adapter_alone_is_trained(self, made, step, ruleset):
        report = verify(made(DIFFUSE) / "lora" / f"checkpoint-{step}", ruleset=ruleset, strict=True)
        assert (report.layout.name, report.passed) == ("diffusers-training", True), said(report)
        assert not report.findings, said(report)

    def test_weights_that_the_moving_average_leaves_out(self, copied):
        checkpoint = copied(DIFFUSE, "run/checkpoint-3")
        path = checkpoint / "unet_ema" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        first = min(tensors)
        path.unlink()
        save_file({name: t for name, t in tensors.items() if name != first}, path)
        (found,) = [f for f in verify(checkpoint).findings if f.rule == "ema/missing"]
        assert (found.place.path, found.severity) == ("unet_ema", "warning")
        assert found.data == {"missing": [first], "weights": len(tensors)}

    def test_a_counter_of_the_moving_average_that_was_set_back(self, copied):
        checkpoint = copied(DIFFUSE, "run/checkpoint-3")
        path = checkpoint / "unet_ema" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "optimization_step": 0}))
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path) == ("ema/missing", "unet_ema/config.json")
        assert found.data == {"counter": "optimization_step", "updates": 3}

    def test_an_average_in_one_dictionary(self, made, tmp_path):
        whole = torch.load(made(DIFFUSE) / "average" / "checkpoint.pt", weights_only=True)
        shadows = whole["ema"]["shadow_params"]

        def found(**changed):
            torch.save({**whole, "ema": {**whole["ema"], **changed}}, tmp_path / "checkpoint.pt")
            return [(f.place.key, f.data) for f in verify(tmp_path).findings if f.rule == "ema/missing"]

        assert found() == []
        assert found(shadow_params=shadows[: len(shadows) // 3]) == []  # an average of one part of the model
        counts = {"shadows": len(shadows) - 3, "parameters": len(shadows)}
        assert found(shadow_params=shadows[3:]) == [("ema", counts)]
        assert found(optimization_step=0) == [
            ("ema.optimization_step", {"counter": "optimization_step", "updates": 6}),
        ]

    def test_a_pipeline_loads_and_is_nothing_to_resume(self, made):
        pipeline = made(DIFFUSE) / "pipeline"
        assert verify(pipeline).layout.name == "diffusers-pipeline"
        assert not verify(pipeline).passed
        report = verify(pipeline, ruleset="inference", strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)

    def test_a_component_that_is_not_there(self, copied):
        pipeline = copied(DIFFUSE, "pipeline")
        shutil.rmtree(pipeline / "scheduler")
        (found,) = verify(pipeline, ruleset="inference").findings
        assert (found.rule, found.place.path) == ("files/missing-required", "scheduler/*")

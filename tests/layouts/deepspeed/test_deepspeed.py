"""What DeepSpeed writes, in fixtures that `make fixtures` made with it: silent when clean, each damage found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from tests.layouts.deepspeed.variants import VARIANTS
from tests.layouts.killing import damages_of, said, survey_of, torch_value

FIXTURES = Path(__file__).parent / "fixtures"
SAVES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.glob("*/*") if path.is_dir())
RESUMED = json.loads((FIXTURES / "resumed.json").read_text())
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
    assert {save.partition("/")[0] for save in SAVES} == set(VARIANTS) == set(RESUMED)


@pytest.mark.parametrize("variant", [name for name, kind in VARIANTS.items() if not kind.universal])
def test_the_plan_is_what_load_checkpoint_does(variant):
    seen = RESUMED[variant]
    inspected = inspect(FIXTURES / variant / seen["path"].partition("/")[0])
    assert seen["global_steps"] - seen["skipped_steps"] == inspected.resume.from_update
    again = VARIANTS[variant].then is not None
    progress = {"epoch": 1, "step_in_epoch": 1 if again else 0}
    assert (seen["global_steps"], seen["client_state"]) == (5 if again else 4, progress)
    said_by_script = ", ".join(f"{name} {value}" for name, value in progress.items())
    more = (
        ("global_samples is 36, and 5 steps of 4 make 20: the batch size changed",) if variant == "fewer_ranks" else ()
    )
    assert inspected.progress.notes == (f"the script's client_state says {said_by_script}", *more)
    assert "it does not skip data or set the epoch" in inspected.resume.sentence
    assert inspected.optimizer.lrs[0] == pytest.approx(seen["lr"][0])


class TestHalfPrecision:
    """fp16 ran on a CPU with DeepSpeed's own refusal taken away; steps 1 and 3 overflowed."""

    @pytest.mark.parametrize("variant", ["fp16", "fp16_fused", "fp16_zero2", "fp16_zero3"])
    def test_steps_that_were_skipped(self, variant):
        seen, inspected = RESUMED[variant], inspect(FIXTURES / variant / "global_step4")
        assert (seen["skipped_steps"], inspected.resume.from_update) == (2, 2)
        assert "4 steps, of which 2 overflowed and made no update" in inspected.resume.sentence
        assert inspected.scaler.scale == seen["scale"] == 64.0  # 256, halved twice

    def test_a_scale_that_is_fixed_is_no_scaler(self):
        assert RESUMED["fp16_static"]["scale"] == 128.0
        assert inspect(FIXTURES / "fp16_static" / "global_step4").scaler is None

    @pytest.mark.parametrize("variant", ["fp16", "fp16_fused", "fp16_static", "bf16_zero0"])
    def test_the_optimizer_began_with_an_update_of_zeros(self, variant):
        """Without ZeRO, DeepSpeed makes the moments by a step of its own, and torch counts it."""
        inspected = inspect(FIXTURES / variant / "global_step4")
        assert inspected.optimizer.updates == inspected.resume.from_update + 1

    @pytest.mark.parametrize(
        ("keys", "value", "rule"),
        [
            (("optimizer", "optimizer_state_dict", "state", 0, "step"), torch.tensor(9.0), "optimizer/step-drift"),
            (("optimizer", "optimizer_state_dict", "param_groups", 0, "lr"), -1.0, "optimizer/bad-hyperparameter"),
            (("optimizer", "cur_scale"), 0.0, "scaler/collapsed"),
            (("skipped_steps",), 9, "progress/counters-disagree"),
        ],
    )
    def test_a_value_that_was_moved(self, copied, keys, value, rule):
        save = copied("fp16") / "global_step4"
        torch_value(MODEL, keys, value).apply(save)
        assert the(verify(save), rule).place.path == MODEL

    def test_a_rate_of_zero_that_the_warmup_set(self):
        """WarmupLR gives 0 for the second update, which here came fourth."""
        inspected = inspect(FIXTURES / "first" / "global_step4")
        assert RESUMED["first"]["lr"] == [0.0] == list(inspected.optimizer.lrs)


def test_signs_and_weights():
    inspected = inspect(FIXTURES / "zero3" / "global_step4")
    assert inspected.layout.signs == (PARTITION.format(0).replace("optim", "model"), PARTITION.format(0))
    assert inspected.weights.parameters == 69 + 13  # and BatchNorm's statistics


ANOTHER_STEP = "a layer or an expert, which records no step; numerics/master-vs-model of `deep` finds it"
NOTHING_LEFT = {f"{MODEL} missing": "nothing is left, and files/missing-checkpoint says that the directory is empty"}
ALONE = {
    **NOTHING_LEFT,
    f"{MODEL} of another step": "the whole save is in it; progress/name-mismatch names the directory",
}
HARMLESS = {
    "zero0": {
        **ALONE,
        f"{MODEL}: mp_world_size = 2": "the finding names the file of the second rank, which is not there",
    },
    "fp16": ALONE,
    "fp16_fused": ALONE,
    "fp16_static": NOTHING_LEFT,
    "bf16_zero0": NOTHING_LEFT,
    "fp16_zero2": {
        f"{MODEL} of another step": "one update of two, which a scaler may have skipped; progress/name-mismatch tells",
    },
    "moe_zero2": {f"layer_0_expert_{n}_mp_rank_00_model_states.pt of another step": ANOTHER_STEP for n in (0, 1)},
    "pipeline_zero1": {f"layer_0{n}-model_states.pt of another step": ANOTHER_STEP for n in (0, 1)},
    "pipeline": {
        "layer_01-model_states.pt missing": "optimizer/param-mismatch finds it; without ZeRO no names are on record",
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


ALIKE = {"universal_bf16", "universal_fp16", "universal_zero3"}
"""Their files are those of `universal`, whose survey takes long enough."""


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS.keys() - ALIKE))
def test_each_damage_is_found(variant, tmp_path, survived):
    save, *later = sorted(path for path in (FIXTURES / variant).iterdir() if path.is_dir())
    damages = [*damages_of(save, *later), *values_of(variant)]
    survey = survey_of(save, damages, tmp_path)
    survived(survey, HARMLESS.get(variant, {}))
    assert len(survey.killed) >= len(damages) - 3


class TestShares:
    """Ranks that divide the model among themselves: tensor parallelism, or stages of a pipeline."""

    @pytest.mark.parametrize("variant", ["autotp", "shares_bf16", "pipeline_bf16"])
    def test_the_optimizer_of_a_share(self, copied, variant):
        save = copied(variant) / "global_step4"
        path = f"bf16_{PARTITION.format(0)}".replace("mp_rank_00", "mp_rank_01")
        (save / path).unlink()
        found = the(verify(save), "ranks/missing-file")
        assert (found.place.path, found.severity.value, found.data["missing"]) == (path, "error", [0])

    @pytest.mark.parametrize("layer", [0, 1])
    def test_a_layer_of_which_the_ranks_speak(self, copied, layer):
        save = copied("pipeline_zero1") / "global_step4"
        (save / f"layer_{layer:02d}-model_states.pt").unlink()
        assert the(verify(save), "files/missing-required").place.path == f"layer_{layer:02d}-model_states.pt"

    def test_weights_of_each_share(self):
        assert inspect(FIXTURES / "shares_zero1" / "global_step4").weights.parameters == 2 * (5 * 4 + 4 + 4 * 3 + 3)


class TestFrozen:
    def test_those_of_stage_3_are_known_by_their_shapes(self):
        assert inspect(FIXTURES / "frozen_zero3" / "global_step4").weights.parameters == 69 + 13

    def test_those_that_were_left_out_are_not_missed(self):
        assert inspect(FIXTURES / "excluded_zero3" / "global_step4").weights.parameters == 33 + 13


class TestUniversal:
    def test_each_parameter_is_counted_once(self):
        """The model states hold it in half precision, its own directory in float32."""
        inspected = inspect(FIXTURES / "universal_bf16" / "global_step4_universal")
        assert (inspected.weights.parameters, inspected.weights.dtypes) == (57, {"float32": 57})


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

    def test_experts_of_another_model(self, copied):
        """`moe_copies` has both experts on each rank, `moe_zero2` one."""
        save = copied("moe_zero2") / "global_step4"
        for rank in (0, 1):
            shutil.copy(
                FIXTURES / "moe_copies" / "global_step4" / PARTITION.format(rank), save / PARTITION.format(rank)
            )
        found = the(verify(save), "optimizer/flat-group-numel")
        assert found.place.key == "optimizer_state_dict.single_partition_of_fp32_groups[1]"
        assert (found.data["have"], found.data["least"]) == (84, 42)


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

    @pytest.mark.parametrize(
        "content", [b"global_step4\0", "global_step4".encode("utf-16"), b"x" * 4_097, "fifo", "directory"]
    )
    def test_latest_can_not_be_read(self, copied, content):
        saves = copied("zero2")
        latest = saves / "latest"
        latest.unlink()
        if isinstance(content, bytes):
            latest.write_bytes(content)
        else:
            (os.mkfifo if content == "fifo" else os.mkdir)(latest)
        report = verify(saves / "global_step4")
        assert not any(o.crash for o in report.outcomes)
        found = the(report, "files/dangling-pointer")
        assert (found.place.path, found.severity.value) == ("../latest", "error")
        assert "../latest does not name a save: it " in found.message

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
        assert "training starts from scratch" in found.message

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

"""Distributed checkpoints of four ranks, and of every way to write them: silent when clean, and each damage found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_dcp.coverage import ChunkCoverage
from tests.layouts.dcp.test_dcp import edited, saved_alone
from tests.layouts.killing import damages_of, said, survey_of

RANKS = "dcp/ranks.py"
ZSTD = Path(__file__).parent / "fixtures" / "zstd" / "step-2"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "alone",
        "cached",
        "copies",
        "files",
        "fsdp1",
        "generators",
        "group-0",
        "group-2",
        "lowest",
        "states",
        "threads",
    ],
)
def test_what_ranks_save_passes_in_strict_mode(made, name):
    report = verify(made(RANKS) / name / "step-2", ruleset="deep", strict=True)
    assert (report.layout.name, report.passed, report.findings) == ("torch-distributed", True, []), said(report)


def test_weights_alone_are_nothing_to_resume_from(made):
    report = verify(made(RANKS) / "meshes" / "step-2", ruleset="deep", strict=True)
    assert (report.layout.name, report.verdict, report.findings) == ("torch-distributed", "unknown", []), said(report)
    assert "neither an optimizer nor progress was found in it" in report.reason


def test_a_save_over_another_passes(made):
    report = verify(made(RANKS) / "overwritten" / "step-4", ruleset="deep", strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)


@pytest.mark.parametrize("name", ["alone", "copies", "files", "lowest", "threads"])
def test_what_is_read_is_what_torch_loads(made, name):
    seen = json.loads((made(RANKS) / "loaded.json").read_text())["loaded"][name]
    inspected = inspect(made(RANKS) / name / "step-2")
    assert (inspected.progress.global_step, inspected.optimizer.updates) == (seen["step"], seen["updates"]) == (2, 2)
    assert inspected.weights.tensors == len(seen["shapes"])
    assert inspected.weights.parameters == sum(torch.Size(shape).numel() for shape in seen["shapes"].values())


def test_torch_saves_no_sum_that_was_not_made(made):
    assert "partial placements" in json.loads((made(RANKS) / "loaded.json").read_text())["partial"]


class TestDamages:
    @pytest.mark.parametrize("name", ["copies", "meshes"])
    def test_each_is_found(self, made, name, tmp_path, survived):
        survey = survey_of(made(RANKS) / name / "step-2", list(damages_of(made(RANKS) / name / "step-2")), tmp_path)
        survived(survey, {})

    @pytest.mark.parametrize("name", ["files", "threads"])
    def test_one_of_many_files_that_is_missing(self, copied, name):
        checkpoint = copied(RANKS, f"{name}/step-2")
        (checkpoint / "__2_1.distcp").unlink()
        result = run_rule(ChunkCoverage(), checkpoint)
        result.assert_one(path="__2_1.distcp", message="is missing")

    def test_a_chunk_that_lies_on_another_ranks(self, copied):
        def change(metadata):
            chunks = metadata.state_dict_metadata["model.twice"].chunks
            chunks[1].offsets = chunks[0].offsets

        result = run_rule(ChunkCoverage(), edited(copied(RANKS, "meshes/step-2"), change))
        result.assert_one(path=".metadata", tensor="model.twice", message="has chunks that overlap")


class TestScalersAndGenerators:
    @pytest.mark.parametrize("name", ["generators", "states"])
    def test_they_are_told_by_their_names(self, made, name):
        inspected = inspect(made(RANKS) / name / "step-2")
        assert (inspected.scaler.enabled, inspected.scaler.scale) == (True, 1024.0)
        assert set(inspected.rng.sources) == ({"torch"} if name == "states" else {"torch", "python"})

    def test_a_scale_that_fell_to_nothing(self, tmp_path):
        scaler = {
            "scale": 0.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": 0,
        }
        path = saved_alone(tmp_path / "step-2", {"model": {"w": torch.ones(2)}, "scaler": scaler, "step": 2})
        (found,) = [f for f in verify(path).findings if f.rule == "scaler/collapsed"]
        assert (found.place.path, found.place.key) == (".metadata", "scaler.scale")

    def test_what_is_merely_called_so(self, tmp_path):
        state = {"model": {"w": torch.ones(2)}, "scaler": {"mean": 0.0}, "rng": {"seed": 3}, "rng_state": torch.ones(4)}
        path = saved_alone(tmp_path / "step-2", state)
        assert (inspect(path).scaler, inspect(path).rng) == (None, None)
        assert not verify(path).findings


class TestCompressed:
    """zstd is not read: nothing is called wrong, and nothing is vouched for."""

    @pytest.mark.parametrize("ruleset", ["default", "deep", "inference"])
    def test_nothing_is_found_and_nothing_is_known(self, ruleset):
        report = verify(ZSTD, ruleset=ruleset, strict=True)
        assert (report.verdict.value, report.findings) == ("unknown", []), said(report)
        assert [o.reason for o in report.outcomes if o.rule == "ranks/chunk-coverage"] == [
            "the entries of __0_0.distcp were written through stream.zstd/1, and are not read"
        ]

    def test_its_weights_are_known_all_the_same(self):
        assert inspect(ZSTD).weights.parameters == 3 * 2 + 2

    def test_a_file_that_was_cut(self, tmp_path):
        checkpoint = Path(shutil.copytree(ZSTD, tmp_path / "step-2"))
        data = (checkpoint / "__0_0.distcp").read_bytes()
        (checkpoint / "__0_0.distcp").write_bytes(data[:-1])
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path) == ("ranks/chunk-coverage", "__0_0.distcp")
        assert "is cut" in found.message

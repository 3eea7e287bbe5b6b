"""Orbax and Keras, from fixtures that the real libraries wrote: recognised, silent when clean, damage found in their frames."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_jax.broken import BrokenKerasFile
from tests.layouts.killing import damages_of, said, survey_of

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("step", ["1", "2"])
def test_what_orbax_saves_passes_in_strict_mode(step):
    report = verify(FIXTURES / "orbax" / step, ruleset="deep", strict=True)
    assert (report.layout.name, report.passed, report.findings) == ("orbax", True, []), said(report)
    assert report.reason.endswith(f"continues after step {step}, by the directory's name")


def test_what_keras_saves_passes_in_strict_mode(tmp_path):
    for path in (FIXTURES / "keras", FIXTURES / "keras" / "model.keras", FIXTURES / "keras" / "model.weights.h5"):
        report = verify(path, ruleset="deep", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("keras", True, []), said(report)


def test_backup_and_restore_says_where_it_stands(tmp_path):
    shutil.copy2(FIXTURES / "keras" / "model.weights.h5", tmp_path / "latest.weights.h5")
    (tmp_path / "training_metadata.json").write_text('{"epoch": 2, "batch": 0}')
    assert inspect(tmp_path).resume.sentence == "training starts epoch 3 at its first batch".removesuffix(
        " at its first batch"
    )
    (tmp_path / "training_metadata.json").write_text('{"epoch": 2, "batch": 7}')
    assert inspect(tmp_path).resume.sentence == "training goes on in epoch 3, at batch 7"


class TestUnfinished:
    @pytest.fixture
    def step(self, tmp_path):
        return Path(shutil.copytree(FIXTURES / "orbax" / "2", tmp_path / "2"))

    def found(self, path):
        return [(f.rule, f.place.path) for f in verify(path).findings]

    def test_a_save_that_was_never_finalised(self, step):
        for marker in ("_CHECKPOINT_METADATA", "commit_success.txt"):
            (step / marker).unlink()
        assert self.found(step) == [("files/commit-marker", "_CHECKPOINT_METADATA")]

    def test_parts_that_were_never_put_together(self, step):
        (step / "state" / "manifest.ocdbt").unlink()
        assert self.found(step) == [("files/missing-required", "state/manifest.ocdbt")]

    def test_arrays_that_are_not_there(self, step):
        shutil.rmtree(step / "state" / "d")
        assert self.found(step) == [("files/missing-required", "state/d/*")]

    def test_a_temporary_directory_beside_it(self, step):
        (step.parent / "2.orbax-checkpoint-tmp").mkdir()
        assert self.found(step) == [("files/staging-leftover", ".")]


def test_each_damage_to_a_keras_file_is_found(tmp_path, survived):
    survey = survey_of(
        FIXTURES / "keras", [d for d in damages_of(FIXTURES / "keras") if "missing" not in d.name], tmp_path
    )
    survived(survey, {})
    assert len(survey.killed) == 8


def test_an_archive_without_its_weights(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
    run_rule(BrokenKerasFile(), tmp_path).assert_one(path="model.keras", message="model.keras lacks model.weights.h5")

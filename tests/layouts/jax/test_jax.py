"""Orbax and Keras, from fixtures that the real libraries wrote: recognised, silent when clean, damage found in their frames."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_jax.broken import BrokenKerasFile
from ckpt_rules_jax.broken_items import BrokenOrbaxItem
from tests.layouts.killing import damages_of, said, survey_of

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("step", ["orbax/1", "orbax/2", "items/3", "zarr/4"])
def test_what_orbax_saves_passes_in_strict_mode(step):
    for ruleset in ("deep", "inference"):
        report = verify(FIXTURES / step, ruleset=ruleset, strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("orbax", True, []), said(report)
    assert inspect(FIXTURES / step).resume.sentence.endswith(
        f"continues after step {step[-1]}, by the directory's name"
    )


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

    def test_a_marker_that_a_copy_left_behind(self, step):
        (step / "commit_success.txt").unlink()
        (found,) = verify(step).findings
        assert (found.rule, found.place.path, found.severity) == (
            "files/missing-required",
            "commit_success.txt",
            "info",
        )

    def test_an_item_that_the_marker_names(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "items" / "3", tmp_path / "3"))
        shutil.rmtree(step / "data")
        shutil.rmtree(step / "state")
        errors = [f.place.path for f in verify(step).findings if f.severity == "error"]
        assert errors[:2] == ["data/metadata", "state/*"]

    def test_a_temporary_directory_beside_it(self, step):
        (step.parent / "2.orbax-checkpoint-tmp").mkdir()
        assert self.found(step) == [("files/staging-leftover", ".")]


UNREAD = "a restore reads the tree that was put together, not this one"
MAY_HOLD = "small arrays lie in the tree itself; whether this file holds one can't be told"
SURVIVORS = {
    r"_CHECKPOINT_METADATA (missing|of another step)": "commit_success.txt is there, and a restore that says what it wants does well",
    r"commit_success.txt missing": "_CHECKPOINT_METADATA is there, and no other part shows that there was one",
    r"(.*/)?commit_success.txt (empty|cut.*|all zeros|of another step)": "Orbax asks for its existence alone",
    r"(.*/)?_sharding missing": "arrays are restored without their sharding",
    r"(.*/)?array_metadatas/process_0 missing": "arrays are restored all the same",
    r".*/ocdbt.process_0/manifest.ocdbt (missing|of another step)": UNREAD,
    r".*/ocdbt.process_0/d/\w+ (missing|all zeros)": MAY_HOLD,
    r"(params.w|step)/[\d.]+ (cut.*|all zeros)": "chunks of zarr are compressed, and not looked into",
}


@pytest.mark.parametrize(("name", "killed"), [("orbax/2", 46), ("items/3", 51), ("zarr/4", 33)])
def test_each_damage_to_a_step_is_found_or_explained(name, killed, tmp_path, survived):
    other = FIXTURES / "orbax" / "1" if name == "orbax/2" else None
    survey = survey_of(FIXTURES / name, damages_of(FIXTURES / name, other), tmp_path)
    survived(survey, {s: why for s in survey.survivors for known, why in SURVIVORS.items() if re.fullmatch(known, s)})
    assert len(survey.killed) == killed, survey


class TestBrokenItem:
    @pytest.fixture
    def step(self, tmp_path):
        return Path(shutil.copytree(FIXTURES / "orbax" / "2", tmp_path / "2"))

    def test_a_manifest_of_another_step(self, step):
        other = FIXTURES / "orbax" / "1" / "state"
        shutil.copy2(other / "manifest.ocdbt", step / "state")
        (named,) = (other / "d").iterdir()
        run_rule(BrokenOrbaxItem(), step).assert_one(
            path=f"state/d/{named.name}", message="is missing, and state/manifest.ocdbt names it"
        )

    def test_a_manifest_that_was_cut(self, step):
        manifest = step / "state" / "manifest.ocdbt"
        manifest.write_bytes(manifest.read_bytes()[:60])
        message = "is 60 bytes long where its frame says 113"
        assert message in run_rule(BrokenOrbaxItem(), step).assert_one(path="state/manifest.ocdbt").message

    def test_an_array_without_one_of_its_chunks(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        (step / "params.w" / "1.0").unlink()
        run_rule(BrokenOrbaxItem(), step).assert_one(
            path="params.w/1.0", message="params.w lacks 1 of its chunks, the first of them 1.0"
        )

    def test_chunks_of_the_fill_value_may_be_left_out(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        (step / "params.w" / "1.0").unlink()
        metadata = step / "_METADATA"
        metadata.write_text(metadata.read_text().replace('value": true', 'value": false'))
        run_rule(BrokenOrbaxItem(), step).assert_passed()

    @pytest.mark.parametrize("shape", ["[1e400]", "[-1]", '["x"]', "null", "[4, 2, 9]", "[99999999999999999999, 2]"])
    def test_shapes_that_make_no_sense(self, tmp_path, shape):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        array = step / "params.w" / ".zarray"
        array.write_text(array.read_text().replace("[4,2]", shape))
        assert [o.crash for o in verify(step).outcomes if o.crash] == []


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

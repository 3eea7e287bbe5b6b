"""Orbax and Keras, from fixtures that the real libraries wrote: recognised, silent when clean, damage found in their frames."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ckpt_rules import inspect, verify
from ckpt_rules.opening import checkpoint_at
from ckpt_rules.testing import run_rule
from ckpt_rules_jax.broken import BrokenKerasFile
from ckpt_rules_jax.broken_items import BrokenOrbaxItem
from tests.layouts.killing import damages_of, said, survey_of

FIXTURES = Path(__file__).parent / "fixtures"
STEPS = ["orbax/1", "orbax/2", "items/3", "zarr/4", "large/5", "large/6", "zarr3/5", "zarr3/6"]


@pytest.mark.parametrize("step", STEPS)
def test_what_orbax_saves_passes_in_strict_mode(step):
    for ruleset in ("deep", "inference"):
        report = verify(FIXTURES / step, ruleset=ruleset, strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("orbax", True, []), said(report)
    assert inspect(FIXTURES / step).resume.sentence.endswith(
        f"continues after step {step[-1]}, by the directory's name"
    )


def test_what_keras_saves_has_no_finding_and_is_unknown_because_hdf5_is_not_read():
    for path in (FIXTURES / "keras", FIXTURES / "keras" / "model.keras", FIXTURES / "keras" / "model.weights.h5"):
        report = verify(path, ruleset="deep", strict=True)
        assert (report.layout.name, report.verdict, report.findings) == ("keras", "unknown", []), said(report)
        assert "neither an optimizer nor progress was found in it" in report.reason


@pytest.mark.parametrize(("name", "epoch", "trained"), [("epoch", 3, 0), ("within", 3, 2), ("last", 1, 5)])
def test_the_plan_is_what_backup_and_restore_did(name, epoch, trained):
    """It continues with the weights, updates and rate of the save, at the first batch of the epoch whatever was trained of it."""
    seen = json.loads((FIXTURES / "backup" / "resumed.json").read_text())[name]
    report, inspected = (
        verify(FIXTURES / "backup" / name, ruleset="deep", strict=True),
        inspect(FIXTURES / "backup" / name),
    )
    assert (report.layout.name, report.passed, report.findings) == ("keras", True, []), said(report)
    plan, progress = inspected.resume, inspected.progress
    first_epoch, first_batch, updates, rate = seen["resumed"][0]
    assert (first_epoch + 1, first_batch) == (plan.epoch, plan.skipped) == (epoch, 0)
    assert [updates, rate] == seen["unbroken"][updates][2:]
    assert progress.step == trained
    assert updates == 5 * (plan.epoch - 1) + progress.step
    assert plan.sentence == f"training starts epoch {epoch} at its first batch" + (
        f", because BackupAndRestore does not skip the {trained} that were trained" if trained else ""
    )


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


UNREAD = "a restore reads the tree that was put together, which does not lead to this file"
SURVIVORS = {
    r"_CHECKPOINT_METADATA (missing|of another step)": "commit_success.txt is there, and a restore that says what it wants does well",
    r"commit_success.txt missing": "_CHECKPOINT_METADATA is there, and no other part shows that there was one",
    r"(.*/)?commit_success.txt (empty|cut.*|all zeros|of another step)": "Orbax asks for its existence alone",
    r"(.*/)?array_metadatas/process_0 missing": "arrays are restored all the same",
    r"(.*/)?ocdbt.process_0/manifest.ocdbt missing": UNREAD,
    r"(.*/)?ocdbt.process_0/d/\w+ (missing|all zeros)": UNREAD,
}
KILLED = [("orbax/2", 50), ("items/3", 54), ("zarr/4", 43), ("large/5", 39), ("zarr3/5", 39)]


@pytest.mark.parametrize(("name", "killed"), KILLED)
def test_each_damage_to_a_step_is_found_or_explained(name, killed, tmp_path, survived):
    """Each survivor, and no other damage but to what a restore reads, was restored by Orbax 0.12.8 to the same values."""
    others = {"orbax/2": "orbax/1", "large/5": "large/6", "zarr3/5": "zarr3/6"}
    other = FIXTURES / others[name] if name in others else None
    survey = survey_of(FIXTURES / name, damages_of(FIXTURES / name, other), tmp_path)
    survived(survey, {s: why for s in survey.survivors for known, why in SURVIVORS.items() if re.fullmatch(known, s)})
    assert len(survey.killed) == killed, survey


@pytest.mark.parametrize("name", ["large/5", "zarr3/5"])
def test_every_file_that_the_tree_leads_to_is_looked_at(name, tmp_path):
    """Survivors lie in files that it does not lead to: of those of process 0, all but one."""
    reach = checkpoint_at(FIXTURES / name).files.ocdbt("manifest.ocdbt").reach
    ((values, _),) = [item for item in reach.items() if item[0].startswith("ocdbt.process_0/")]
    damages = [d for d in damages_of(FIXTURES / name) if d.path == values]
    assert len(damages) == 5
    assert survey_of(FIXTURES / name, damages, tmp_path).survivors == {}


def values_of(step):
    """The file of values that the tree leads to."""
    reach = checkpoint_at(step).files.ocdbt("manifest.ocdbt").reach
    return next(path for path in reach if path.startswith("ocdbt.process_0/"))


class TestBrokenItem:
    @pytest.fixture
    def step(self, tmp_path):
        return Path(shutil.copytree(FIXTURES / "orbax" / "2", tmp_path / "2"))

    @pytest.fixture
    def large(self, tmp_path):
        return Path(shutil.copytree(FIXTURES / "large" / "5", tmp_path / "large" / "5"))

    def test_a_manifest_of_another_step(self, step):
        other = FIXTURES / "orbax" / "1" / "state"
        shutil.copy2(other / "manifest.ocdbt", step / "state")
        (named,) = (other / "d").iterdir()
        run_rule(BrokenOrbaxItem(), step).assert_one(
            path=f"state/d/{named.name}", message="is missing, but state/manifest.ocdbt refers to it"
        )

    def test_a_manifest_that_was_cut(self, step):
        manifest = step / "state" / "manifest.ocdbt"
        manifest.write_bytes(manifest.read_bytes()[:60])
        message = "the manifest takes 60 bytes where its frame says 113"
        assert message in run_rule(BrokenOrbaxItem(), step).assert_one(path="state/manifest.ocdbt").message

    def test_a_file_of_values_is_gone(self, large):
        path = values_of(large)
        (large / path).unlink()
        run_rule(BrokenOrbaxItem(), large).assert_one(
            path=path, message=f"{path} is missing, but manifest.ocdbt refers to it"
        )

    def test_a_file_of_values_that_was_cut(self, large):
        path = values_of(large)
        (large / path).write_bytes((large / path).read_bytes()[:3000])
        run_rule(BrokenOrbaxItem(), large).assert_one(
            path=path, message=f"{path} has 3,000 bytes, but manifest.ocdbt refers to byte"
        )

    def test_a_file_of_values_that_holds_zeros(self, large):
        path = values_of(large)
        (large / path).write_bytes(bytes((large / path).stat().st_size))
        found = run_rule(BrokenOrbaxItem(), large).assert_one(path=path)
        assert "does not begin as zstd does, but with zero bytes; 1 more of its chunks are damaged" in found.message

    def test_zeros_in_the_middle_of_a_chunk_of_zarr_3(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr3" / "5", tmp_path / "5"))
        path = values_of(step)
        data = (step / path).read_bytes()
        (step / path).write_bytes(data[:1500] + bytes(1000) + data[2500:])
        found = run_rule(BrokenOrbaxItem(), step).assert_one(path=path)
        assert "chunk params.w/c/" in found.message

    def test_a_node_in_which_a_byte_changed(self, large):
        path = next(iter((large / "d").iterdir()))
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        found = run_rule(BrokenOrbaxItem(), large).assert_one(path=f"d/{path.name}")
        assert "the B+tree node has CRC-32C" in found.message

    def test_an_array_that_the_tree_does_not_hold(self, large):
        metadata = large / "_METADATA"
        metadata.write_text(metadata.read_text().replace('"w"', '"v"'))
        message = "manifest.ocdbt contains no array params.v, which _METADATA lists"
        run_rule(BrokenOrbaxItem(), large).assert_one(path="manifest.ocdbt", message=message)

    def test_a_chunk_of_another_shape(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        shutil.copy2(step / "step" / "0", step / "params.w" / "1.0")
        run_rule(BrokenOrbaxItem(), step).assert_one(
            path="params.w/1.0", message="chunk params.w/1.0 unpacks into 8 bytes, but a chunk takes 16"
        )

    def test_blocks_past_the_limit_are_not_walked(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        chunk = step / "params.w" / "1.0"
        chunk.write_bytes(chunk.read_bytes()[:-1])
        message = "chunk params.w/1.0 ends after 24 bytes, where its zstd frame takes at least 25"
        run_rule(BrokenOrbaxItem(), step).assert_one(path="params.w/1.0", message=message)
        run_rule(BrokenOrbaxItem(blocks=1), step).assert_passed()

    def test_an_array_without_one_of_its_chunks(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        (step / "params.w" / "1.0").unlink()
        run_rule(BrokenOrbaxItem(), step).assert_one(
            path="params.w/1.0", message="params.w lacks 1 of its chunks, the first being params.w/1.0"
        )

    def test_chunks_of_the_fill_value_may_be_left_out(self, tmp_path):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        (step / "params.w" / "1.0").unlink()
        metadata = step / "_METADATA"
        metadata.write_text(metadata.read_text().replace('value": true', 'value": false'))
        run_rule(BrokenOrbaxItem(), step).assert_passed()

    @pytest.mark.parametrize(
        "shape",
        ["[1e400]", "[-1]", '["x"]', "null", "[4, 2, 9]", "[99999999999999999999, 2]", "[4611686018427387000, 2]"],
    )
    def test_shapes_that_make_no_sense(self, tmp_path, shape):
        step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
        array = step / "params.w" / ".zarray"
        array.write_text(array.read_text().replace("[4,2]", shape))
        assert [o.crash for o in verify(step).outcomes if o.crash] == []


@pytest.mark.parametrize("dtype", ["<f" + "9" * 5_000, "<f9999", "", "[1]"])
def test_dtypes_that_make_no_sense(tmp_path, dtype):
    step = Path(shutil.copytree(FIXTURES / "zarr" / "4", tmp_path / "4"))
    array = step / "params.w" / ".zarray"
    array.write_text(array.read_text().replace("<f4", dtype))
    assert [o.crash for o in verify(step).outcomes if o.crash] == []


def test_each_damage_to_a_keras_file_is_found(tmp_path, survived):
    survey = survey_of(
        FIXTURES / "keras", [d for d in damages_of(FIXTURES / "keras") if "missing" not in d.name], tmp_path
    )
    survived(survey, {})
    assert len(survey.killed) == 8


BACKUP_HARMLESS = {
    "latest.weights.h5 missing": "no file of Keras is left to tell the layout by",
    "latest.weights.h5 of another step": "HDF5 is not looked into: only a digest could tell",
    "training_metadata.json missing": "weights alone are a healthy save of save_weights",
    "training_metadata.json of another step": "it is the only record of the epoch",
}


def test_each_damage_to_a_backup_is_found(tmp_path, survived):
    backup = FIXTURES / "backup"
    survey = survey_of(backup / "within", damages_of(backup / "within", backup / "epoch"), tmp_path)
    survived(survey, BACKUP_HARMLESS)
    assert len(survey.killed) == 8


def test_an_archive_without_its_weights(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
    run_rule(BrokenKerasFile(), tmp_path).assert_one(path="model.keras", message="model.keras lacks model.weights.h5")

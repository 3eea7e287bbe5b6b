"""Distributed checkpoints: silent when clean, understood without torch, and each damage found."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import torch_save_to_dcp
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ckpt_rules import inspect, verify
from ckpt_rules.testing import run_rule
from ckpt_rules_dcp.coverage import ChunkCoverage
from tests.layouts.killing import Damage, damages_of, said, survey_of

TRAIN = "dcp/train.py"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", ["single", "fsdp2", "titan", "async"])
@pytest.mark.parametrize("step", [2, 4])
def test_what_dcp_saves_passes_in_strict_mode(made, variant, step):
    report = verify(made(TRAIN, variant) / f"step-{step}", ruleset="deep", strict=True)
    assert report.layout.name == "torch-distributed"
    assert report.passed, said(report)
    assert not report.findings, said(report)
    assert report.reason.startswith(f"safe to resume; training continues after step {step}")


@pytest.mark.parametrize("variant", ["single", "fsdp2", "titan", "async"])
def test_what_is_read_is_what_torch_loads(made, variant):
    out = made(TRAIN, variant)
    seen, inspected = json.loads((out / "resumed.json").read_text()), inspect(out / "step-2")
    assert seen["step"] == inspected.progress.global_step == inspected.resume.from_update == 2
    assert seen["updates"] == inspected.optimizer.updates
    assert seen["last_epoch"] == inspected.scheduler.last_epoch
    assert inspected.optimizer.lrs == (seen.get("lr", 0.001),)
    assert (inspected.weights.tensors, inspected.weights.parameters) == (4, 4 * 31 + 31 + 2 * 31 + 2)
    assert (inspected.optimizer.kind, inspected.optimizer.parameters, inspected.optimizer.lrs) == ("AdamW", 4, (0.001,))


class TestRecognition:
    def test_without_its_metadata_it_is_an_unfinished_save(self, copied):
        checkpoint = copied(TRAIN, "fsdp2", "step-2")
        (checkpoint / ".metadata").unlink()
        report = verify(checkpoint)
        assert report.layout.name == "torch-distributed"
        (found,) = [f for f in report.findings if f.severity == "error"]
        assert (found.rule, found.place.path) == ("files/commit-marker", ".metadata")
        assert "`cp *`" in found.message

    def test_without_any_file_of_data(self, copied):
        checkpoint = copied(TRAIN, "fsdp2", "step-2")
        for path in checkpoint.glob("*.distcp"):
            path.unlink()
        found = [f.place.path for f in verify(checkpoint).findings if f.rule == "ranks/chunk-coverage"]
        assert found == ["__0_0.distcp", "__1_0.distcp"]


class TestOverwrittenInPlace:
    """The default of torch: the old metadata stays until the end."""

    def test_a_save_over_an_older_one_that_was_killed(self, copied):
        checkpoint = copied(TRAIN, "fsdp2", "step-2")
        data = (checkpoint / "__1_0.distcp").read_bytes()
        (checkpoint / "__1_0.distcp").write_bytes(data[:15_000])
        found = run_rule(ChunkCoverage(), checkpoint).assert_one(path="__1_0.distcp", message="15,000 bytes long")
        assert found.data["end"] == len(data)

    def test_fewer_ranks_leave_a_file_behind(self, copied):
        checkpoint = copied(TRAIN, "single", "step-2")
        shutil.copy2(checkpoint / "__0_0.distcp", checkpoint / "__1_0.distcp")
        (found,) = verify(checkpoint).findings
        assert (found.rule, found.place.path, found.severity) == ("ranks/unreferenced-file", "__1_0.distcp", "warning")


def edited(checkpoint, change):
    """Rewrite `.metadata` with torch's own classes."""
    path = checkpoint / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata, protocol=4))
    return checkpoint


class TestChunks:
    def test_a_chunk_that_was_lost(self, copied):
        checkpoint = edited(
            copied(TRAIN, "fsdp2", "step-2"), lambda m: m.state_dict_metadata["model.0.weight"].chunks.pop()
        )
        result = run_rule(ChunkCoverage(), checkpoint)
        result.assert_one(path=".metadata", tensor="model.0.weight", message="124 elements, but its chunks hold 64")

    def test_chunks_that_overlap(self, copied):
        def change(metadata):
            metadata.state_dict_metadata["model.0.weight"].chunks[1].offsets = torch.Size((8, 0))

        result = run_rule(ChunkCoverage(), edited(copied(TRAIN, "fsdp2", "step-2"), change))
        result.assert_one(tensor="model.0.weight", message="has chunks that overlap")

    def test_a_chunk_beyond_its_tensor(self, copied):
        def change(metadata):
            metadata.state_dict_metadata["model.0.weight"].chunks[1].offsets = torch.Size((20, 0))

        result = run_rule(ChunkCoverage(), edited(copied(TRAIN, "fsdp2", "step-2"), change))
        result.assert_one(tensor="model.0.weight", message="extends past it")

    def test_an_entry_without_a_place(self, copied):
        def change(metadata):
            index = next(i for i in metadata.storage_data if i.fqn == "model.0.weight")
            del metadata.storage_data[index]

        result = run_rule(ChunkCoverage(), edited(copied(TRAIN, "fsdp2", "step-2"), change))
        result.assert_some(tensor="model.0.weight", message="2 chunks, but only 1 have a place")

    def test_ranges_that_overlap(self, copied):
        def change(metadata):
            next(s for i, s in metadata.storage_data.items() if i.fqn == "model.0.bias").offset -= 100

        result = run_rule(ChunkCoverage(), edited(copied(TRAIN, "fsdp2", "step-2"), change))
        result.assert_some(path="__0_0.distcp", tensor="model.0.bias", message="overlap in __0_0.distcp")

    @pytest.mark.parametrize("value", [None, 3, [], {"state_dict_metadata": {}}])
    def test_a_pickle_of_something_else(self, copied, value):
        checkpoint = copied(TRAIN, "fsdp2", "step-2")
        (checkpoint / ".metadata").write_bytes(pickle.dumps(value, protocol=4))
        run_rule(ChunkCoverage(), checkpoint).assert_one(path=".metadata", message="holds no metadata")


def test_ranks_of_two_moments(copied, made):
    checkpoint = copied(TRAIN, "fsdp2", "step-2")
    (checkpoint / "__1_0.distcp").unlink()
    shutil.copy2(made(TRAIN, "fsdp2") / "step-4" / "__1_0.distcp", checkpoint / "__1_0.distcp")
    report = verify(checkpoint)
    assert not [f for f in report.findings if f.rule == "ranks/chunk-coverage"]  # the lengths agree


HARMLESS = {
    ".metadata of another step": "it says the same of files of the same lengths",
    "__0_0.distcp of another step": "same names, shapes and lengths: only a digest could tell",
    "__1_0.distcp of another step": "all counters lie in this one file, so that they agree; only a digest could tell",
}


def test_each_damage_is_found(made, tmp_path, survived):
    out = made(TRAIN, "fsdp2")
    damages: list[Damage] = list(damages_of(out / "step-2", out / "step-4"))
    survey = survey_of(out / "step-2", damages, tmp_path)
    survived(survey, HARMLESS)
    assert len(survey.killed) >= 12


class TestSafetensors:
    def test_pieces_under_one_name_are_healthy(self, made):
        path = made(TRAIN, "huggingface") / "step-2"
        report = verify(path, ruleset="inference", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("torch-distributed-safetensors", True, []), (
            said(report)
        )
        assert inspect(path).weights.parameters == 4 * 31 + 31 + 2 * 31 + 2

    def test_a_rank_that_is_not_there(self, copied):
        path = copied(TRAIN, "huggingface", "step-2")
        (path / "shard-00001-model-00001-of-00001.safetensors").unlink()
        (found,) = verify(path, ruleset="inference").findings
        assert (found.rule, found.place.path) == (
            "files/missing-required",
            "shard-00001-model-00001-of-00001.safetensors",
        )


def test_more_objects_than_are_read(copied, tmp_path):
    checkpoint = copied(TRAIN, "fsdp2", "step-2")
    team = tmp_path / "team.yaml"
    team.write_text("extends: [default]\nlimits: {parts: 3}\n")
    found = [f for f in verify(checkpoint, ruleset=team).findings if f.rule == "ranks/chunk-coverage"]
    assert [f.place.path for f in found] == ["__1_0.distcp"]
    assert "small entries of __1_0.distcp can't be read" in found[0].message


def saved_alone(path, state, **planning):
    """Save without any process group, as a script on one device does."""
    planner = dcp.DefaultSavePlanner(**planning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a single process is meant so
        dcp.save(state, checkpoint_id=path, planner=planner, no_dist=True)
    return path


@pytest.fixture
def trained():
    """A model and its optimizer of two groups, after two steps."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}])
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    return model, optimizer


class TestOptimizersByNumber:
    """`optimizer.state_dict()` counts parameters; a save makes text of the numbers in its state, and not of those in its groups."""

    def test_an_optimizer_that_was_saved_as_it_is(self, tmp_path, trained):
        model, optimizer = trained
        state = {"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 2}
        report = verify(saved_alone(tmp_path / "step-2", state), ruleset="deep", strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)
        assert inspect(tmp_path / "step-2").optimizer.parameters == 2

    def test_a_file_that_was_converted(self, tmp_path, trained):
        model, optimizer = trained
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "whole.pt")
        torch_save_to_dcp(tmp_path / "whole.pt", tmp_path / "step-2")
        report = verify(tmp_path / "step-2", ruleset="deep", strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)

    def test_parameters_whose_names_are_numbers(self, tmp_path):
        model = torch.nn.ParameterList([torch.ones(3), torch.ones(4)])
        optimizer = torch.optim.Adam(model.parameters())
        sum(p.sum() for p in model).backward()
        optimizer.step()
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments, "step": 1}
        report = verify(saved_alone(tmp_path / "step-1", state), ruleset="deep", strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)

    def test_a_state_of_no_parameter_is_still_seen(self, tmp_path, trained):
        model, optimizer = trained
        moments = optimizer.state_dict()
        moments["state"][7] = moments["state"].pop(1)
        path = saved_alone(tmp_path / "step-2", {"model": model.state_dict(), "optimizer": moments, "step": 2})
        found = [f for f in verify(path).findings if f.rule == "optimizer/param-mismatch"]
        assert [(f.place.path, f.place.key) for f in found] == [(".metadata", "optimizer.state[7]")]

    def test_a_number_of_very_many_digits_is_a_name(self, tmp_path):
        value = torch.tensor(1.0)
        optimizer = {"state": {"9" * 5000: {"step": value}}, "param_groups": {"9" * 5000: {"lr": value}}}
        path = saved_alone(tmp_path / "step-1", {"model": {"w": torch.ones(2)}, "optimizer": optimizer})
        report = verify(path)
        assert not [o.rule for o in report.outcomes if o.status == "crashed"]


def test_a_state_that_was_not_flattened(tmp_path, trained):
    model, optimizer = trained
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    path = saved_alone(tmp_path / "step-2", state, flatten_state_dict=False)
    report = verify(path, ruleset="deep", strict=True)
    assert (report.passed, report.findings) == (True, []), said(report)
    assert (inspect(path).weights.parameters, inspect(path).optimizer.parameters) == (8, 2)


def test_sharded_tensors_in_one_object_are_not_vouched_for(tmp_path):
    """One rank's object is stored, so that the shards of the others are lost; torch says nothing of it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        whole = distribute_tensor(torch.ones(4, 2), init_device_mesh("cpu", (1,)), [Shard(0)])
        saved_alone(tmp_path / "step-2", {"model": {"w": whole}}, flatten_state_dict=False)
    finally:
        dist.destroy_process_group()
    report = verify(tmp_path / "step-2")
    assert (report.passed, report.findings) == (False, []), said(report)
    assert [o.blocked_by for o in report.outcomes if o.rule == "weights/missing"] == [".metadata"]

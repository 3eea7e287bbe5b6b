"""Megatron's and NeMo's checkpoints, built file by file from their documented structure: Megatron itself needs a GPU.

The sharded part is DCP's own, written by torch.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckpt_rules import inspect, newest_checkpoint, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

ARGS = {"consumed_train_samples": 800, "global_batch_size": 8, "train_iters": 500, "num_layers": 4}


def common(iteration=100, **args):
    values = argparse.Namespace(**{**ARGS, "consumed_train_samples": iteration * 8, **args})
    return {
        "args": values,
        "checkpoint_version": 3.0,
        "iteration": iteration,
        "optimizer": {"optimizer": {"param_groups": [{"lr": 1e-4, "step": iteration, "params": [0]}]}},
        "opt_param_scheduler": {"num_steps": iteration * 8},
    }


def sharded(folder, iteration=100, **args):
    folder.mkdir(parents=True)
    torch.save(common(iteration, **args), folder / "common.pt")
    torch.manual_seed(1)
    state = {
        "decoder.layers.weight": torch.randn(4, 8, 8),
        "optimizer.state.exp_avg.decoder.layers.weight": torch.randn(4, 8, 8),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a single process is meant so
        dcp.save(state, checkpoint_id=folder, no_dist=True)
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1}))
    return folder


@pytest.fixture
def run(tmp_path):
    """A run of two saves, with its tracker."""
    for iteration in (50, 100):
        sharded(tmp_path / "run" / f"iter_{iteration:07d}", iteration)
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("100")
    return tmp_path / "run"


def rules(path):
    return [(f.rule, f.place.path) for f in verify(path).findings if f.severity != "info"]


HARMLESS = {
    ".metadata of another step": "it says the same of files of the same lengths",
    "common.pt of another step": "progress/name-mismatch reports it, at the directory whose name says another iteration",
}


class TestDistributed:
    def test_a_clean_save(self, run):
        report = verify(run / "iter_0000100", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("megatron", True, []), said(report)
        assert "continues at iteration 101, after 800 samples" in report.reason
        assert inspect(run / "iter_0000100").weights.parameters == 256

    def test_without_its_marker_it_never_finished(self, run):
        (run / "iter_0000100" / "metadata.json").unlink()
        assert rules(run / "iter_0000100") == [("files/commit-marker", "metadata.json")]

    @pytest.mark.parametrize(
        ("text", "rule", "words"),
        [
            (None, "files/dangling-pointer", "starts from random weights"),
            ("", "files/dangling-pointer", "names nothing"),
            ("300", "files/dangling-pointer", "names '300', which does not exist"),
            ("ten", "files/dangling-pointer", "Invalid metadata file"),
            ("release", "files/dangling-pointer", "names 'release', which does not exist"),
            ("50", "files/stale-pointer", "'iter_0000100' is newer"),
        ],
    )
    def test_the_tracker(self, run, text, rule, words):
        tracker = run / "latest_checkpointed_iteration.txt"
        tracker.unlink() if text is None else tracker.write_text(text)
        (found,) = verify(run / "iter_0000100").findings
        assert (found.rule, found.place.path) == (rule, "../latest_checkpointed_iteration.txt")
        assert words in found.message

    def test_an_older_save_is_not_blamed_for_the_tracker(self, run):
        assert rules(run / "iter_0000050") == []

    def test_samples_that_no_number_of_iterations_makes(self, tmp_path):
        path = sharded(tmp_path / "save", consumed_train_samples=801)
        found = [f for f in verify(path).findings if f.rule == "progress/counters-disagree"]
        assert [f.place.key for f in found] == ["args.consumed_train_samples", "opt_param_scheduler.num_steps"]
        assert "801 samples were consumed, but 100 iterations of 8 are 800" in found[0].message

    def test_a_growing_batch_explains_any_number(self, tmp_path):
        path = sharded(tmp_path / "save", rampup_batch_size=[2, 2, 100], consumed_train_samples=800)
        assert verify(path, strict=True).passed

    def test_each_damage_is_found(self, run, tmp_path, survived):
        values = [torch_value("common.pt", ("iteration",), v) for v in (99, -1, "x", None)]
        damages = [*damages_of(run / "iter_0000100", run / "iter_0000050"), *values]
        survey = survey_of(run / "iter_0000100", damages, tmp_path / "work")
        survived(survey, HARMLESS)


def trained(dtype, iteration, skipped=0):
    """A model in half precision with float32 copies that were trained, as Float16OptimizerWithFloat16Params keeps them."""
    layers = {f"layers.{n}.weight": torch.randn(4, 4, dtype=dtype) for n in range(4)}
    copies = [torch.nn.Parameter(w.float()) for w in layers.values()]
    adam = torch.optim.AdamW(copies, lr=1e-4)
    for _ in range(iteration - skipped):
        for copy in copies:
            copy.grad = torch.ones_like(copy)
        adam.step()
    optimizer = {"optimizer": adam.state_dict(), "fp32_from_fp16_params": [[c.data for c in copies]]}
    if skipped:
        optimizer["grad_scaler"] = {"scale": torch.tensor([1024.0]), "growth_tracker": 5, "hysteresis_tracker": 2}
    generators = {
        "random_rng_state": random.getstate(),
        "torch_rng_state": torch.get_rng_state(),
        "rng_tracker_states": {},
    }
    model = {"language_model": {"encoder": layers}}
    return {**common(iteration), "model": model, "optimizer": optimizer, "rng_state": [generators]}


class TestHalfPrecision:
    """In the form of a file for each rank, the optimizer is one inside of another."""

    def saved(self, tmp_path, values):
        folder = tmp_path / "run" / "iter_0000030" / "mp_rank_00"
        folder.mkdir(parents=True)
        torch.save(values, folder / "model_optim_rng.pt")
        (folder.parents[1] / "latest_checkpointed_iteration.txt").write_text("30")
        return folder.parent

    @pytest.mark.parametrize(("dtype", "skipped"), [(torch.bfloat16, 0), (torch.float16, 1)])
    def test_a_clean_save(self, tmp_path, dtype, skipped):
        save = self.saved(tmp_path, trained(dtype, 30, skipped))
        report = verify(save, ruleset="deep", strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("megatron-ranks", True, []), said(report)
        inspected = inspect(save)
        assert (inspected.optimizer.updates, inspected.optimizer.parameters) == (30 - skipped, 4)
        assert (inspected.scaler is not None) is bool(skipped)

    def test_an_optimizer_of_another_step(self, tmp_path):
        values = trained(torch.bfloat16, 30)
        values["optimizer"] = trained(torch.bfloat16, 2)["optimizer"]
        (found,) = [f for f in verify(self.saved(tmp_path, values)).findings if f.rule == "optimizer/step-drift"]
        assert found.place.key == "optimizer.optimizer.state[0].step"
        assert "2 updates" in found.message

    def test_several_that_are_chained_are_left_alone(self, tmp_path):
        values = trained(torch.bfloat16, 30)
        values["optimizer"] = [values["optimizer"], {"optimizer": {"param_groups": []}}]
        report = verify(self.saved(tmp_path, values), strict=True)
        assert (report.passed, report.findings) == (True, []), said(report)


def test_a_run_of_megatron_bridge_has_a_tracker_of_its_own(run):
    (run / "latest_checkpointed_iteration.txt").unlink()
    torch.save({"step": torch.tensor(100)}, run / "latest_train_state.pt")
    assert not verify(run / "iter_0000100", strict=True).findings


class TestNemo:
    @pytest.fixture
    def save(self, tmp_path):
        path = tmp_path / "model--step=100"
        sharded(path / "weights")
        (path / "context").mkdir()
        (path / "context" / "io.json").write_text("{}")
        return path

    def test_a_clean_save(self, save):
        report = verify(save, strict=True)
        assert (report.layout.name, report.passed, report.findings) == ("megatron", True, []), said(report)
        assert "context/" in report.layout.signs

    def test_one_that_is_marked_as_unfinished(self, save):
        (save.parent / f"{save.name}-unfinished").touch()
        (found,) = verify(save).findings
        assert (found.rule, found.severity) == ("files/staging-leftover", "error")
        assert "marks a save that was started but not finished: NeMo does not resume from it" in found.message

    def test_a_run_whose_newest_save_is_marked(self, save):
        last = save.with_name("model--step=150-consumed_samples=1200.0-last")
        shutil.copytree(save, last)
        folder = str(save.parent)
        assert newest_checkpoint(folder) == str(last)
        last.with_name(f"{last.name}-unfinished").touch()
        assert newest_checkpoint(folder) == str(save)


class TestRanks:
    @pytest.fixture
    def save(self, tmp_path):
        """Two tensor ranks, two pipeline stages of two layers each."""
        path = tmp_path / "run" / "iter_0000100"
        for tensor in range(2):
            for stage in range(2):
                folder = path / f"mp_rank_{tensor:02d}_{stage:03d}"
                folder.mkdir(parents=True)
                layers = {f"layers.{n}.weight": torch.randn(4, 4) for n in range(2)}
                torch.save({**common(), "model": {"encoder": layers}}, folder / "model_optim_rng.pt")
        (path.parent / "latest_checkpointed_iteration.txt").write_text("100")
        return path

    def test_a_clean_save(self, save):
        report = verify(save, strict=True)
        assert (report.layout.name, report.passed) == ("megatron-ranks", True), said(report)

    def test_a_rank_that_is_not_there(self, save):
        (save / "mp_rank_01_001" / "model_optim_rng.pt").unlink()
        found = rules(save)
        assert ("files/missing-required", "mp_rank_01_001/model_optim_rng.pt") in found
        assert ("ranks/layer-range", "mp_rank_01_000/model_optim_rng.pt") in found

    def test_a_rank_of_another_moment(self, save):
        path = save / "mp_rank_01_000" / "model_optim_rng.pt"
        torch.save({**torch.load(path, weights_only=False), "iteration": 90}, path)
        found = [f for f in verify(save).findings if f.rule == "ranks/mixed-steps"]
        assert [(f.place.path, f.data) for f in found] == [
            ("mp_rank_01_000/model_optim_rng.pt", {"steps": {"90": 1, "100": 3}})
        ]

    def optimizers(self, save, **args):
        """The distributed optimizer's file beside each rank's, as Megatron names its buffers by dtypes."""
        for path in save.glob("mp_rank_*/model_optim_rng.pt"):
            values = {**torch.load(path, weights_only=False), **common(use_distributed_optimizer=True, **args)}
            torch.save({**values, "optimizer": {"optimizer": {"param_groups": []}}}, path)
            flat = {"param": torch.ones(8), "exp_avg": torch.ones(8), "exp_avg_sq": torch.ones(8)}
            shards = {0: {(torch.bfloat16, torch.float32): flat}, "buckets_coalesced": True}
            torch.save(shards, path.with_name("distrib_optim.pt"))

    def test_a_distributed_optimizer(self, save):
        self.optimizers(save)
        report = verify(save, ruleset="deep", strict=True)
        assert (report.passed, [f.rule for f in report.findings]) == (True, ["rng/missing"]), said(report)
        (save / "mp_rank_01_000" / "distrib_optim.pt").unlink()
        assert rules(save) == [("files/missing-required", "mp_rank_01_000/distrib_optim.pt")]

    def test_one_of_which_no_file_is_there(self, save):
        self.optimizers(save)
        for path in save.glob("*/distrib_optim.pt"):
            path.unlink()
        assert [rule for rule, _ in rules(save)] == ["files/missing-required"] * 4

    def test_one_in_another_format_is_elsewhere(self, save):
        self.optimizers(save, ckpt_format="torch_dcp")
        for path in save.glob("*/distrib_optim.pt"):
            path.unlink()
        assert rules(save) == []

    def test_a_stage_of_another_split(self, save):
        path = save / "mp_rank_00_001" / "model_optim_rng.pt"
        torch_value(str(path.relative_to(save)), ("model",), {"encoder": {"layers.0.weight": torch.ones(4, 4)}}).apply(
            save
        )
        (found,) = [f for f in verify(save).findings if f.rule == "ranks/layer-range"]
        assert "hold 3 layers, but the arguments say 4" in found.message

"""The directories of Lightning's strategies: silent when clean, resumed where we say, and each damage found.

`model-parallel` is trained here; `fixtures/` were made by `make fixtures`, with the stand-ins that `strategies.py` describes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from torch.utils.data import DistributedSampler

from ckpt_rules import inspect, newest_checkpoint, verify
from tests.layouts.killing import damages_of, said, survey_of, torch_value

TRAIN = "lightning/strategies.py"
FIXTURES = Path(__file__).parent / "fixtures"
SAVES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.glob("*/*.ckpt"))
MID, LATER = "epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"
MODEL = "checkpoint/mp_rank_00_model_states.pt"
BATCHES = 6

pytestmark = pytest.mark.slow


def the(report, rule):
    (found,) = [f for f in report.findings if f.rule == rule]
    return found


class TestClean:
    def test_what_the_strategies_write_passes_in_strict_mode(self, made):
        saves = sorted((made(TRAIN, "model-parallel") / "checkpoints").iterdir())
        assert len(saves) == 6
        for save in [*saves, *(FIXTURES / save for save in SAVES)]:
            report = verify(save, ruleset="deep", strict=True)
            kind = "lightning-deepspeed" if save.parent.name.startswith("zero") else "lightning-sharded"
            assert (report.layout.name, report.passed, report.findings) == (kind, True, []), said(report)

    def test_last_may_be_a_link(self, made):
        saves = made(TRAIN, "model-parallel") / "checkpoints"
        assert (saves / "last.ckpt").is_symlink()
        assert inspect(saves / "last.ckpt").optimizer.parameters == 4
        assert newest_checkpoint(saves) == f"{saves}/epoch=1-step=12.ckpt"

    @pytest.mark.parametrize("variant", ["model-parallel", "fsdp", "zero2", "zero3"])
    def test_the_plan_is_what_the_real_trainer_does(self, made, variant):
        out = made(TRAIN, variant) / "checkpoints" if variant == "model-parallel" else FIXTURES / variant
        known = out.parent / "resumed.json"
        resumed = (
            json.loads(known.read_text()) if variant == "model-parallel" else json.loads(known.read_text())[variant]
        )
        for name, seen in resumed.items():
            inspected = inspect(out / name)
            plan, progress = inspected.resume, inspected.progress
            assert inspected.optimizer.updates == plan.from_update == progress.global_step
            (first,) = seen["first"]
            assert (first["epoch"], first["batch"], first["global_step"]) == (
                plan.epoch - 1,
                progress.step,
                plan.from_update,
            )
            assert first["lr"] == pytest.approx(inspected.optimizer.lrs[0])
            assert seen["batches"] == (3 - plan.epoch) * BATCHES - progress.step
            assert first["data"] == order_of_data(plan.epoch)[2 * plan.skipped :][:2]  # the data always start again


def order_of_data(epoch):
    """The numbers that the first rank is given in an epoch, as Lightning shuffles them by the seed."""
    sampler = DistributedSampler(range(BATCHES * 2 * 2), num_replicas=2, rank=0, seed=0)
    sampler.set_epoch(epoch - 1)
    return [float(i) for i in sampler]


class TestRecognition:
    def test_several_signs(self):
        inspected = inspect(FIXTURES / "fsdp" / LATER)
        assert inspected.layout.signs[:3] == (
            "'pytorch-lightning_version' in meta.pt", "'loops' in meta.pt", ".metadata",
        )  # fmt: skip
        assert inspect(FIXTURES / "zero2" / MID).layout.signs[0] == f"'pytorch-lightning_version' in {MODEL}"

    def test_without_meta_the_save_never_finished(self, tmp_path):
        save = shutil.copytree(FIXTURES / "fsdp" / LATER, tmp_path / LATER)
        (save / "meta.pt").unlink()
        report = verify(save)
        found = the(report, "files/commit-marker")
        assert (report.layout.name, found.place.path) == ("lightning-sharded", "meta.pt")
        assert "does not point to a valid checkpoint" in found.message

    def test_without_latest_lightning_finds_nothing(self, tmp_path):
        save = shutil.copytree(FIXTURES / "zero2" / MID, tmp_path / MID)
        (save / "latest").unlink()
        report = verify(save)
        found = the(report, "files/commit-marker")
        assert (report.layout.name, found.place.path) == ("lightning-deepspeed", "latest")
        assert "DeepSpeed was unable to load the checkpoint" in found.message

    def test_a_directory_of_fabric_is_one_of_distributed_checkpoint(self, tmp_path):
        """Fabric writes `meta.pt` too, with what the script gave it."""
        import torch

        save = shutil.copytree(FIXTURES / "fsdp" / LATER, tmp_path / "state")
        torch.save({"steps": 8}, save / "meta.pt")
        assert verify(save).layout.name == "torch-distributed"

    def test_weights_alone_are_nothing_to_resume_from(self, tmp_path):
        """What `save_weights_only` leaves out of the file, it leaves out of `meta.pt` as well."""
        import torch

        save = shutil.copytree(FIXTURES / "fsdp" / LATER, tmp_path / LATER)
        values = torch.load(save / "meta.pt", weights_only=False)
        torch.save({k: v for k, v in values.items() if k not in ("callbacks", "lr_schedulers")}, save / "meta.pt")
        report = verify(save)
        assert the(report, "scheduler/missing").place.key == "lr_schedulers"


class TestRuns:
    def test_directories_and_files_of_one_run(self, made, run_of_both):
        path = run_of_both
        report = verify(path / "last.ckpt", strict=True)
        assert report.passed
        assert newest_checkpoint(path) == f"{path}/last.ckpt"
        (path / "last.ckpt" / "meta.pt").unlink()
        assert newest_checkpoint(path) == f"{path}/epoch=1-step=20.ckpt"

    def test_the_save_before(self, run_of_both):
        """A directory is compared with the directory before it, though a file lies between them."""
        report = verify(run_of_both / LATER, ruleset="deep")
        assert [o.status for o in report.outcomes if o.rule == "previous/progress-went-back"] == ["passed"], said(
            report
        )


@pytest.fixture
def run_of_both(made, tmp_path):
    """Two directories, a file of a later step, and `last.ckpt`, which is a directory."""
    run = tmp_path / "checkpoints"
    source = made(TRAIN, "model-parallel") / "checkpoints"
    for name in (MID, LATER):
        shutil.copytree(source / name, run / name)
    shutil.copytree(source / LATER, run / "last.ckpt")
    shutil.copy2(made("lightning/train.py", "plain") / "checkpoints" / "epoch=1-step=20.ckpt", run)
    return run


FIT = ("loops", "fit_loop")
COUNTERS = (
    ((*FIT, "epoch_progress", "current", "ready"), 4),
    ((*FIT, "epoch_loop.batch_progress", "current", "processed"), 9),
    ((*FIT, "epoch_loop.automatic_optimization.optim_progress", "optimizer", "step", "total", "completed"), 2),
    (("global_step",), 21),
    (("epoch",), 5),
    (("lr_schedulers", 0, "last_epoch"), 1),
    (("lr_schedulers", 0, "_last_lr"), [0.7]),
)
HARMLESS = {
    "__0_0.distcp of another step": "same names, shapes and lengths, and no counter: only a digest could tell",
    "__1_0.distcp of another step": "found, but named is `meta.pt`, which is one file against the counters of many parameters",
    ".metadata of another step": "it says the same of files of the same lengths",
}


def test_each_damage_to_a_sharded_one_is_found(made, tmp_path, survived):
    saves = made(TRAIN, "model-parallel") / "checkpoints"
    values = [torch_value("meta.pt", keys, value) for keys, value in COUNTERS]
    damages = [*damages_of(saves / MID, saves / LATER), *values]
    survey = survey_of(saves / MID, damages, tmp_path)
    survived(survey, HARMLESS)
    assert len(survey.killed) == len(damages) - len(HARMLESS)
    assert "ranks/mixed-steps" in survey.survivors["__1_0.distcp of another step"]


@pytest.mark.parametrize("variant", ["zero2", "zero3"])
def test_each_damage_to_one_by_deepspeed_is_found(tmp_path, variant, survived):
    first, second = (FIXTURES / save for save in SAVES if save.startswith(variant))
    save, other = (first, second) if variant == "zero2" else (second, first)
    model = MODEL if variant == "zero2" else "checkpoint/zero_pp_rank_0_mp_rank_00_model_states.pt"
    values = [torch_value(model, keys, value) for keys, value in (*COUNTERS, (("global_steps",), 9))]
    damages = [*damages_of(save, other), *values]
    survey = survey_of(save, damages, tmp_path)
    survived(survey, {})
    assert len(survey.killed) == len(damages)

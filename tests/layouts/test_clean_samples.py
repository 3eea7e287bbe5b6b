"""Clean saves of 32 trainers, most of which have no layout here: none fails, and nothing is warned of that is not so."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ckpt_rules import verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in
from tests.layouts.killing import said

ARCHIVE = Path(__file__).parent / "fixtures" / "trainers.tar.xz"
TRAINERS = (
    "ai_toolkit", "composer", "detr_style", "espnet", "fairseq2", "icefall", "ignite", "lerobot", "lingua", "litgpt", "mace",
    "megatron_core_019", "monai", "nanochat", "nanotron", "nemo_rl", "nnunet", "olmo_core", "onetrainer", "open_clip",
    "openpi_torch", "openrlhf", "prime_rl", "rsl_rl", "sb3", "sd_scripts", "skrl", "skyrl", "speechbrain",
    "torchvision_references", "verl", "yolov5",
)  # fmt: skip

NAMESPACE = ("state/needs-unsafe-load", "checkpoint.pth")
TRUE = {"detr_style": {NAMESPACE}, "torchvision_references": {NAMESPACE}}
"""What is said of a clean save because it is true: both pickle their arguments as argparse.Namespace, which torch.load refuses by default."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainers")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return next(p.parent for p in folder.rglob("megatron_core_019"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_clean_save_is_never_blamed(samples, trainer):
    run = str(samples / trainer)
    saves = [save for found in runs_in(run, installed_plugins()).values() for save in found]
    for path in saves or (run,):
        report = verify(path)
        told = {(f.rule, f.place.path) for f in report.findings if f.severity != "info"}
        assert told == TRUE.get(trainer, set()), f"{path}: {said(report)}"
        assert report.verdict != "failed", f"{path}: {said(report)}"
        assert not [o.rule for o in report.outcomes if o.status == "crashed"]


def test_every_trainer_of_the_archive_is_tried(samples):
    assert sorted(p.name for p in samples.iterdir() if p.is_dir()) == sorted(TRAINERS)

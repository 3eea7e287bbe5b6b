"""Clean saves of trainers that have no layout here pass or end unknown: nothing is said against them that is not so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckpt_rules import verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in
from tests.layouts.by_keys import saves
from tests.layouts.killing import said

PASSED = ("deim", "diffusion_pipe", "dinov2", "dinov3", "edm2", "f5_tts", "fairchem", "gan", "imagenet", "nerfstudio",
          "pykeen", "recbole", "rl_games", "sample_factory", "simpletuner")  # fmt: skip
UNKNOWN = ("areal", "automodel", "basicsr", "cleanrl", "colossalai", "coqui", "deepmd", "dreamer", "equinox", "fastai", "funasr",
           "gpt_sovits_half", "physicsnemo", "rllib", "rvc", "skorch", "three_d_gaussians", "wenet", "xtuner")  # fmt: skip
"""A layout of its own is to come for some; until then nobody says that they are safe to resume."""
ONE_FILE_OF_ANY_NAME = ("audiocraft", "tacotron")
ADAPTERS = ("diffsynth", "mlx_lm")


def verified(name, path):
    """The report of a save: of the directory, or of the one below that a run's saves lie in."""
    getattr(saves, name)(path)
    found = [save for each in runs_in(str(path), installed_plugins()).values() for save in each]
    folders = sorted({Path(f).parent for f, _, files in os.walk(path) for f in (Path(f, n) for n in files)})
    report = verify(found[0] if found else str(folders[0] if len(folders) == 1 else path))
    assert not [o.rule for o in report.outcomes if o.status == "crashed"]
    return report


def blamed(report):
    return [(f.severity.value, f.rule) for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("name", [*PASSED, *ONE_FILE_OF_ANY_NAME])
def test_those_that_are_understood_pass(name, tmp_path):
    report = verified(name, tmp_path)
    assert report.verdict == "passed", said(report)
    assert blamed(report) == []


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_others_end_as_unknown(name, tmp_path):
    report = verified(name, tmp_path)
    assert report.verdict == "unknown", said(report)
    assert blamed(report) == []


def test_a_training_state_whose_weights_nobody_can_read_is_not_called_safe(tmp_path):
    report = verified("physicsnemo", tmp_path)
    assert "no weights were found in it that can be read here" in report.reason


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_of_other_libraries_are_nothing_to_resume(name, tmp_path):
    report = verified(name, tmp_path)
    (found,) = [f for f in report.findings if f.severity != "info"]
    assert (found.severity, found.rule, found.place.path) == ("error", "files/not-resumable", ".")
    assert found.message.startswith("the directory holds an adapter and no training state")


def test_a_namespace_of_arguments_is_told_of_for_torch_load_refuses_it(tmp_path):
    report = verified("convnext", tmp_path)
    assert report.verdict == "passed"
    assert blamed(report) == [("warning", "state/needs-unsafe-load")]


@pytest.mark.parametrize("name", saves.OPTIMIZERS)
def test_every_optimizer_of_torch(name, tmp_path):
    saves.one_file(tmp_path, *saves.trained(saves.OPTIMIZERS[name]))
    report = verify(tmp_path)
    assert (report.verdict, blamed(report)) == ("passed", []), said(report)


@pytest.mark.parametrize("name", saves.SCHEDULERS)
def test_every_scheduler_of_torch(name, tmp_path):
    saves.one_file(tmp_path, *saves.trained(scheduler=saves.SCHEDULERS[name]))
    report = verify(tmp_path)
    assert (report.verdict, blamed(report)) == ("passed", []), said(report)

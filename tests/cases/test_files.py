"""Damaged checkpoints that once passed, crashed a rule or never ended: each is blamed for what is wrong with it, and for nothing else."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from ckpt_rules import verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in

HERE = Path(__file__).parent
EXPECTED = yaml.safe_load((HERE / "files.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with tarfile.open(HERE / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("case", EXPECTED)
def test_each_damage_is_named_with_its_place_and_numbers(files, case):
    report = verify(str(files / case))
    said = [f"{f.severity} {f.rule} @ {f.place}: {f.message}" for f in report.findings if f.severity != "info"]
    assert said == EXPECTED[case]
    assert not [o.rule for o in report.outcomes if o.status == "crashed"]


def test_every_case_has_an_expectation(files):
    assert {c.name for c in files.iterdir()} == {Path(case).parts[0] for case in EXPECTED}


def test_the_other_saves_of_the_run_with_an_instantiator_are_clean(files):
    run = files / "sec_adv_light_instantiator" / "mid_epoch"
    saves = [Path(s).name for found in runs_in(str(run), installed_plugins()).values() for s in found]
    clean = [name for name in saves if name != "last.ckpt"]
    assert len(clean) == 4
    assert [verify(str(run / name)).findings for name in clean] == [[]] * 4


def test_a_link_to_a_tree_of_the_system_is_not_followed(files, tmp_path):
    save = tmp_path / "checkpoint-6"
    shutil.copytree(files / "hf_group_no_lr" / "checkpoint-6", save)
    (save / "p").symlink_to("/proc")
    report = verify(str(save))
    assert [f.rule for f in report.findings if f.severity == "error"] == ["optimizer/bad-hyperparameter"]
    assert not [f for f in report.findings if f.place.path.startswith("p/")]

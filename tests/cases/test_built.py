"""Checkpoints of public incidents, written by scripts that imitate their trainers: what is said of each save, and of its sound twin."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import yaml

from ckpt_rules import verify
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.runs import runs_in

HERE = Path(__file__).parent
EXPECTED = yaml.safe_load((HERE / "built.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(HERE / "built.tar.xz") as archive:
        archive.extractall(folder, filter="tar")  # one link is to an absolute path
    return folder


def said_of(finding):
    return f"{finding.severity} {finding.rule} @ {finding.place}: {finding.message}"


@pytest.mark.parametrize("save", EXPECTED)
def test_each_save_ends_as_it_should(built, save):
    expected = EXPECTED[save]
    report = verify(str(built / save), ruleset=expected.get("ruleset", "default"))
    said = [said_of(f).replace(str(built), "BUILT") for f in report.findings if f.severity != "info"]
    assert (str(report.verdict), said) == (expected["verdict"], expected.get("said", []))
    assert not [o.rule for o in report.outcomes if o.status == "crashed"]


def test_every_save_of_the_archive_is_tried(built):
    tried = {Path(save) for save in EXPECTED}
    for case in built.iterdir():
        found = [Path(s) for run in runs_in(str(case), installed_plugins()).values() for s in run]
        for save in found or [case]:
            relative = save.relative_to(built)
            assert any(relative == t or relative in t.parents or t in relative.parents for t in tried), relative

"""Hostile samples: each acts on the loader that it names, none on us, and the default ruleset has a word about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ckpt_rules import verify
from tests.hostile.clean import CLEAN
from tests.hostile.programs import MARKER
from tests.hostile.samples import HOSTILE

ABOUT_THE_FILE = ("pickle/", "zip/", "safetensors/", "files/wrong-format", "weights/broken-")
BY_NAME = {sample.name: sample for sample in HOSTILE}
ACTING = [sample.name for sample in HOSTILE if sample.loader]
FRAMES_ARE_KEPT = sys.version_info >= (3, 14, 7) or (3, 13, 15) <= sys.version_info < (3, 14)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What became of each sample when it was loaded: whether it acted, and the loader's error."""
    argv = [sys.executable, "-m", "tests.hostile.run_loaders", tmp_path_factory.mktemp("victims")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the victims' input is made as Linux has it")
@pytest.mark.parametrize("name", ACTING)
def test_it_acts_on_who_loads_it(name, loaded):
    acted, error = loaded[name]
    if error.startswith("ModuleNotFoundError"):
        pytest.skip(error)
    if name == "straddled.pkl" and FRAMES_ARE_KEPT:
        pytest.skip("this Python does not read on behind a frame")
    assert acted, error


@pytest.mark.parametrize("name", BY_NAME)
def test_it_is_reported_and_does_not_act(name, tmp_path, monkeypatch):
    sample = BY_NAME[name]
    folder = sample.write(tmp_path / "checkpoint").parent
    monkeypatch.chdir(folder)
    report = verify(folder)
    about = [f for f in report.findings if f.place.path == name and f.rule.startswith(ABOUT_THE_FILE)]
    severities = {f.severity.value for f in about} - {"info"}
    assert ("error" if "error" in severities else "".join(severities)) == sample.answer
    assert not [o.rule for o in report.outcomes if o.status.value == "crashed"]
    assert not (folder / MARKER).exists()


def test_names_are_names_of_one_sample():
    assert len(BY_NAME) == len(HOSTILE)


@pytest.mark.slow
@pytest.mark.parametrize("sample", CLEAN, ids=lambda sample: sample.name)
def test_a_clean_file_is_not_reported(sample, tmp_path):
    try:
        folder = sample.write(tmp_path / "checkpoint").parent
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))
    assert [f for f in verify(folder).findings if f.rule.startswith(ABOUT_THE_FILE)] == []

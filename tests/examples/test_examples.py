"""The other examples do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_rules import Severity, verify

REPO = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demo_passes_what_is_clean_and_fails_what_is_damaged():
    argv = [sys.executable, REPO / "examples" / "demo.py"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout
    assert "one clean checkpoint passed, 8 damaged ones failed, each for its own reason" in done.stdout


def test_the_teams_ruleset_is_in_force(make_checkpoint):
    ruleset = REPO / "examples" / "team-ruleset.yaml"
    assert verify(make_checkpoint(), ruleset=ruleset).passed
    report = verify(make_checkpoint(rng=False), ruleset=ruleset)
    assert [(f.rule, f.severity) for f in report.findings] == [("rng/missing", Severity.ERROR)]
    report = verify(make_checkpoint(updates=15), ruleset=ruleset)
    assert ("optimizer/step-drift", Severity.ERROR) in {(f.rule, f.severity) for f in report.findings}


def test_the_file_in_the_plugin_page_works_as_it_stands(make_checkpoint, tmp_path):
    page = (REPO / "docs" / "plugins.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", page, re.DOTALL)[:2])
    (tmp_path / "our_rules.py").write_text(blocks["python"])
    (tmp_path / "team.yaml").write_text(blocks["yaml"])
    report = verify(make_checkpoint(), ruleset=tmp_path / "team.yaml")
    (finding,) = report.findings
    assert finding.rule == "ours/too-small"
    assert "the model has 1,448 parameters, and 100,000,000 are expected at least" in finding.message

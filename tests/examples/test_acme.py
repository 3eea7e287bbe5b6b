"""The third-party plugin passes its own tests, with torch and without. (CI really installs it: .ci/wheel_test.py.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ckpt-rules-acme"


@pytest.fixture
def site(tmp_path) -> Path:
    """A directory for PYTHONPATH that makes the example look installed, entry point and all."""
    info = tmp_path / "site" / "ckpt_rules_acme-1.2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ckpt-rules-acme\nVersion: 1.2.0\n")
    (info / "entry_points.txt").write_text("[ckpt_rules]\nacme = ckpt_rules_acme\n")
    return info.parent


def run(site: Path, *argv: str) -> str:
    """Python with the example installed, in a directory where nothing else is."""
    path = os.pathsep.join([str(site), str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *argv], env=env, cwd=site, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), ("torch", "safetensors", "numpy")], ids=["torch", "no torch"])
def test_its_own_tests_pass(site, hidden):
    lines = [f"sys.modules[{name!r}] = None" for name in hidden]
    (site / "sitecustomize.py").write_text("\n".join(["import sys", *lines]))
    said = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(EXAMPLE / "tests"))
    assert " passed" in said
    assert "skipped" not in said


def test_the_command_line_lists_what_it_brings(site):
    listed = run(site, "-m", "ckpt_rules", "plugins")
    assert "acme 1.2.0 ckpt-rules-acme 2 rules; 1 layout: acme; 1 ruleset: house" in " ".join(listed.split())
    assert "acme/" in run(site, "-m", "ckpt_rules", "rulesets", "show", "acme:house")
    assert "Share of the bytes that may be float32" in " ".join(
        run(site, "-m", "ckpt_rules", "rule", "acme/no-fp32").split()
    )

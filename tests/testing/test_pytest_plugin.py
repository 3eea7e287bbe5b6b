"""The fixtures that every project with ckpt-rules installed has, and what having them costs."""

from __future__ import annotations

import subprocess
import sys

from ckpt_rules import Status


def test_make_checkpoint_builds_one_directory_after_another(make_checkpoint, tmp_path):
    one, two, named = make_checkpoint(), make_checkpoint(epoch=3), make_checkpoint("run-a")
    assert [c.path for c in (one, two, named)] == [
        tmp_path / "checkpoint_a",
        tmp_path / "checkpoint_b",
        tmp_path / "run-a",
    ]


def test_run_rule_is_there_as_a_fixture(make_checkpoint, run_rule, fake_rule):
    assert run_rule(fake_rule()(), make_checkpoint()).status is Status.PASSED


def test_the_plugin_imports_nothing_that_a_session_without_checkpoints_would_pay_for():
    code = "import sys, pytest, ckpt_rules.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pydantic", "ckpt_rules.engine"} & set(done.stdout.split())

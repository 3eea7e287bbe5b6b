"""Processes that meet a fault of the system, and local plugins that misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from textwrap import dedent, indent

import pytest

RULE = '''
import os, signal, subprocess, sys
from ckpt_rules import FactUnavailable, Finding, Place, Problem, Rule

{top}

class Sick(Rule):
    """Something is bad.

    ## What it checks
    Nothing of use.

    ## Why it matters
    It does not.

    ## How to repair
    There is no way.
    """

    id = "sick/rule"

    def check(self, checkpoint):
{body}
'''


@pytest.fixture
def command(tmp_path):
    """`command("verify", path, stdout=…)`: the command in a process of its own, ended."""

    def run(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=None, **environment):
        def prepare():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and so would we
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.run(
            [sys.executable, "-m", "ckpt_rules", *map(str, arguments)],
            stdout=stdout, stderr=stderr, env=os.environ | environment, cwd=tmp_path, preexec_fn=prepare,
            check=False, timeout=60,
        )  # fmt: skip

    return run


@pytest.fixture
def sick_ruleset(tmp_path):
    """The path of a ruleset that selects one rule more than `files/empty`: one with this body, or with this above it."""

    def make(body="return []", top=""):
        code = RULE.format(top=dedent(top), body=indent(dedent(body).strip("\n"), " " * 8))
        (tmp_path / "sick.py").write_text(code, encoding="utf-8")
        ruleset = tmp_path / "sick.yaml"
        ruleset.write_text("plugins: [./sick.py]\nselect: [files/empty, 'sick/*']\n", encoding="utf-8")
        return ruleset

    return make

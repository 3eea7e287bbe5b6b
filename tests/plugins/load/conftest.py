"""Loaders that do as a test says, in the real process with its real limits."""

from __future__ import annotations

import pytest

from ckpt_rules_load import child

SCRIPT = """
import os, resource, signal, sys, time
sys.path.insert(0, {package!r})
from ckpt_rules_load import child

def load(path):
    name = os.path.basename(path)
{body}

child.LOADERS = {{"torch.load": lambda: load, "safe_open": lambda: load}}
child.main()
"""


@pytest.fixture
def pretend_loader(tmp_path, monkeypatch):
    """`pretend_loader("raise ValueError(name)")`: what the loader does with a file, of which it knows `path` and `name`."""
    program = tmp_path / "pretended.py"
    package = child.__file__.removesuffix("/ckpt_rules_load/child.py")

    def make(body):
        indented = "\n".join(f"    {line}" for line in body.splitlines())
        program.write_text(SCRIPT.format(package=package, body=indented))
        monkeypatch.setattr(child, "__file__", str(program))

    return make

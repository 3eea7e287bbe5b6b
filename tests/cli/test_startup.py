"""What is not imported. Start-up time is not measured here; it is what is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "numpy",
    "safetensors",
    "rich",
    "jsonschema",
    "asyncio",
    "fsspec",
    "pytest",
    "unittest",
    "http",
    "multiprocessing",
    "zstandard",
]


def imported_by(code: str, *arguments: str) -> set[str]:
    """Top-level modules in `sys.modules` after some code has run in a fresh interpreter."""
    report = "import sys; print('\\n' + ' '.join({n.partition('.')[0] for n in sys.modules} | set(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}", *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_next_to_nothing():
    imported = imported_by("import ckpt_rules")
    assert imported.isdisjoint({"typing", "pydantic", "pluggy", "typer", "yaml", "importlib.metadata", "json", *HEAVY})
    assert not any(name.startswith("ckpt_rules.") for name in imported)


@pytest.mark.parametrize("ruleset", ["quick", "default"])
def test_verifying_imports_nothing_heavy(make_checkpoint, ruleset):
    code = "import sys; from ckpt_rules.cli import main; code = main(sys.argv[1:]); assert code == 0, code"
    ck = make_checkpoint()
    imported = imported_by(code, "verify", "--ruleset", ruleset, ck.path)
    assert imported & set(HEAVY) == set()
    assert "ckpt_rules_files" in imported


def test_verifying_from_a_training_loop_imports_no_command_line(make_checkpoint):
    code = "import sys; from ckpt_rules import quick_verify_checkpoint; quick_verify_checkpoint(sys.argv[1])"
    imported = imported_by(code, make_checkpoint().path)
    assert imported & {"typer", "click", "ckpt_rules.cli", "ckpt_rules.reporters", *HEAVY} == set()


@pytest.mark.parametrize("command", [["--version"], ["--help"]])
def test_commands_that_need_no_plugin_load_none(command):
    imported = imported_by("import sys; from ckpt_rules.cli import main; main(sys.argv[1:])", *command)
    assert not any(name.startswith(("ckpt_rules_", "rich")) for name in imported)

"""^C: one line, exit code 130, no traceback, and no part of a report."""

from __future__ import annotations

import os

import pytest

PRESSED = """
if checkpoint.path.endswith("_b"):
    os.kill(os.getpid(), signal.SIGINT)
return []
"""


@pytest.fixture
def paths(make_checkpoint):
    return [make_checkpoint(f"checkpoint_{letter}").path for letter in "abc"]


def test_the_reports_that_were_printed_stand(command, sick_ruleset, paths):
    ended = command("verify", *paths, "--ruleset", sick_ruleset(PRESSED))
    assert (ended.returncode, ended.stderr) == (130, b"interrupted\n")
    assert f"checkpoint    {paths[0]}" in ended.stdout.decode()
    assert str(paths[1]) not in ended.stdout.decode()


def test_json_is_whole_or_absent(command, sick_ruleset, paths):
    ended = command("verify", *paths, "--ruleset", sick_ruleset(PRESSED), "--format", "json")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_file_keeps_what_was_in_it(command, sick_ruleset, paths, tmp_path, form):
    (tmp_path / "report").write_text("old")
    ended = command("verify", *paths, "--ruleset", sick_ruleset(PRESSED), "--format", form, "--output", "report")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")
    assert [(n, (tmp_path / n).read_text()) for n in os.listdir(tmp_path) if "report" in n] == [("report", "old")]


def test_while_a_plugin_is_imported(command, sick_ruleset, paths):
    ended = command("verify", paths[0], "--ruleset", sick_ruleset(top="os.kill(os.getpid(), signal.SIGINT)"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")


def test_a_rule_that_raises_an_interrupt_of_its_own_is_one(command, sick_ruleset, paths):
    ended = command("verify", paths[0], "--ruleset", sick_ruleset("raise type('Stop', (KeyboardInterrupt,), {})"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")

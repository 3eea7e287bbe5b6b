"""The text report: golden files for its looks, and what must hold whatever the report."""

from __future__ import annotations

import re
import unicodedata

import pytest

from ckpt_rules.reporters.style import Style
from ckpt_rules.reporters.text import render, summary


class TestGolden:
    def test_a_pass(self, passing, golden):
        golden("passing.txt", render(passing))

    def test_everything_that_can_be_wrong(self, failing, golden):
        golden("failing.txt", render(failing))

    def test_a_path_that_is_not_there(self, nothing_there, golden):
        golden("missing.txt", render(nothing_there))

    def test_verbose(self, passing, golden):
        golden("passing-verbose.txt", render(passing, verbose=True))

    def test_everything_that_can_be_wrong_verbose(self, failing, golden):
        text = render(failing, verbose=True)
        assert text.count("the index names this file") == 1392
        shards = re.compile(r"( +model-\d+-of-01399.safetensors\n +the index names this file, but it is not there\n)+")
        golden("failing-verbose.txt", shards.sub("           (1,392 shards)\n", text))

    def test_quiet(self, failing, golden):
        golden("failing-quiet.txt", render(failing, quiet=True))

    def test_colour(self, nothing_there, golden):
        golden("missing-colour.txt", render(nothing_there, Style(colour=True)))

    def test_a_stream_that_has_only_ascii(self, passing, golden):
        golden("passing-ascii.txt", render(passing, Style(unicode=False)))

    def test_several(self, passing, failing, nothing_there, golden):
        golden("summary.txt", summary([passing, failing.answer(), nothing_there.answer()]))


def test_a_pass_is_silent_when_quiet(passing):
    assert render(passing, quiet=True) == ""


@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_80_columns(failing, passing, nothing_there, verbose):
    for report in (failing, passing, nothing_there):
        long = [line for line in render(report, verbose=verbose).splitlines() if len(line) > 80]
        assert [line for line in long if "|" not in line] == []


@pytest.mark.parametrize("verbose", [False, True])
def test_nothing_that_a_terminal_would_obey_is_printed(failing, verbose):
    text = render(failing, verbose=verbose)
    assert {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs"}} == {"\n"}
    assert r"model.\x1b[31m\nlayers\udcff.0.weight" in text


def test_repeated_findings_are_counted_and_none_is_lost(failing):
    assert "and 1,387 more; --verbose shows them all" in render(failing)


def test_colour_changes_no_character(failing):
    painted = render(failing, Style(colour=True))
    assert re.sub(r"\x1b\[[\d;]+m", "", painted) == render(failing)


def test_the_last_line_is_the_answer(passing, failing):
    assert render(passing).splitlines()[-2].startswith("PASSED  safe to resume; epoch 3 continues: ")
    assert "\nUNKNOWN  cannot tell whether it is safe to resume: 1 rule crashed;" in render(failing)

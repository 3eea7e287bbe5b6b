"""Whatever a ruleset file holds, it resolves or is a `RulesetError` that names the file."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt_rules import RulesetError
from ckpt_rules.ruleset import resolve

TODAY = date(2027, 1, 15)

WHOLE = """\
description: What we ask
extends: [./base.yaml]
requires: ["pluggy>=1"]
select: ["acme/*", "tag:numerics"]
exclude: ["house/*"]
rules:
  acme/no-fp32: error
  acme/missing: off
  acme/needs-limit:
    severity: warning
    options: {limit: 8}
strict: false
ignore:
  - rule: acme/no-fp32
    path: "legacy/**"
    reason: saved before
    expires: 2027-06-30
"""
PIECES = [
    *"[]{}:,-?#&*!|>'\"%@`\n\t \0\x85\ufeff\ud800~",
    "- ", ": ", "\n  ", "null", "off", "<<", "---\n", "...", "!!python/object:os.system", "*a", "&a", "1e400",
    "acme/*", "tag:", "severity", "options", "rules", "ignore", "extends", "select", "./team.yaml", "quick", "\x1b[2J",
]  # fmt: skip
QUICKLY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def resolves(write, plugins):
    write("base.yaml", "select: [acme/step-drift]")

    def outcome(content: bytes):
        write("team.yaml", content)
        try:
            return resolve("team.yaml", plugins, today=TODAY)
        except RulesetError as error:
            return error

    def check(content: bytes):
        found = outcome(content)
        if not isinstance(found, RulesetError):
            assert found.rules
            return
        assert {Path(p.file).name for p in found.problems} <= {"team.yaml", "base.yaml", "quick.yaml", "default.yaml"}
        assert all(p.line >= 0 and p.column >= 0 and p.message for p in found.problems)

    return check


def test_the_whole_is_right(write, plugins):
    write("base.yaml", "select: [acme/step-drift]")
    write("team.yaml", WHOLE)
    assert [s.rule.id for s in resolve("team.yaml", plugins, today=TODAY).rules] == [
        "acme/needs-limit",
        "acme/no-fp32",
        "acme/step-drift",
    ]


@QUICKLY
@given(content=st.binary(max_size=200))
def test_any_bytes(resolves, content):
    resolves(content)


@QUICKLY
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_yaml_like_text(resolves, pieces):
    resolves("".join(pieces).encode("utf-8", "surrogatepass"))


@QUICKLY
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 12), st.sampled_from(["", *PIECES])),
        min_size=1,
        max_size=3,
    )
)
def test_a_ruleset_with_slips(resolves, edits):
    text = WHOLE
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    resolves(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_ruleset_that_is_cut_short(resolves, length):
    resolves(WHOLE[:length].encode())

"""A small world of rules, and rulesets written on the spot."""

from __future__ import annotations

from datetime import date
from textwrap import dedent
from typing import Literal

import pytest
from pydantic import Field

from ckpt_rules import Severity
from ckpt_rules.ruleset import resolve


@pytest.fixture
def today():
    return date(2027, 1, 15)


@pytest.fixture
def rules(fake_rule):
    """Five rules: four of `acme/` with and without options, one of `house/`."""
    return [
        fake_rule(
            "acme/step-drift",
            tags=frozenset({"resume", "numerics"}),
            severity=Severity.WARNING,
            former_ids=("acme/drift",),
            options={
                "tolerance": (int, Field(default=20, ge=0, description="Updates that may be missing.")),
                "ratio": (float | None, Field(default=0.5, le=1, description="A share.")),
                "mode": (Literal["sum", "mean"], Field(default="sum", description="How to count.")),
                "names": (tuple[str, ...], Field(default=("lr",), description="Names.")),
            },
        ),
        fake_rule("acme/no-fp32", tags=frozenset({"numerics"})),
        fake_rule("acme/missing"),
        fake_rule("acme/needs-limit", options={"limit": (int, Field(description="A limit."))}),
        fake_rule("house/missing", tags=frozenset({"resume"})),
    ]


@pytest.fixture
def plugins(plugins_of, rules):
    return plugins_of(acme={"rules": rules[:4]}, house={"rules": rules[4:]})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty directory to be in, so that files are called as they are written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    """`write("team.yaml", text)`: a file in the current directory; indentation common to all lines is not a part of it."""

    def write_file(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).lstrip("\n").encode())
        return path

    return write_file


@pytest.fixture
def resolved(write, plugins, today):
    """What is in force in a ruleset of this text."""

    def resolve_text(text, plugins=plugins, **arguments):
        write("team.yaml", text)
        return resolve("team.yaml", plugins, **{"today": today, **arguments})

    return resolve_text

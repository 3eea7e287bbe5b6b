"""The pages of rules, in Markdown."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal

import pytest
from pydantic import Field

from ckpt_rules import Severity
from ckpt_rules.catalogue import rule_info, rule_infos, rule_page, rules_page, rules_table
from ckpt_rules.plugins import installed_plugins


class Unit(StrEnum):
    STEP = "step"
    EPOCH = "epoch"


@pytest.fixture
def info(fake_rule, load):
    def make(**options):
        rule = fake_rule(
            severity=Severity.WARNING, tags=frozenset({"resume", "files"}), former_ids=("acme/old",), options=options
        )
        return rule_info(rule, load(rules=[rule]))

    return make


@pytest.mark.parametrize(
    ("kind", "field", "said", "default"),
    [
        (int, Field(default=20, ge=0, description="x"), "whole number, at least 0", "20"),
        (float, Field(default=0.001, gt=0, lt=1, description="x"), "number, above 0, below 1", "0.001"),
        (bool, Field(default=True, description="x"), "true or false", "true"),
        (str, Field(default="a", description="x"), "text", "a"),
        (Literal["a", "b"], Field(default="a", description="x"), "`a` or `b`", "a"),
        (Literal["a"], Field(default="a", description="x"), "`a`", "a"),
        (Unit, Field(default=Unit.STEP, description="x"), "`step` or `epoch`", "step"),
        (int | None, Field(default=None, description="x"), "whole number or null", "null"),
        (tuple[str, ...], Field(default=("a", "b"), description="x"), "list of text", "[a, b]"),
        (frozenset[str], Field(default=frozenset({"b", "a"}), description="x"), "list of text", "[a, b]"),
        (dict[str, int], Field(default_factory=dict, description="x"), "mapping", "{}"),
        (int, Field(description="x"), "whole number", "must be given"),
        (type, Field(default=int, description="x"), "any value", "<class 'int'>"),
    ],
)
def test_options(info, kind, field, said, default):
    page = rule_page(info(option=(kind, field)))
    assert f"| `option` | {said} | {default} | x |" in page.splitlines()


def test_a_page(info):
    assert rule_page(info()) == (
        "# acme/bad\n\nSomething is bad.\n\n"
        "Severity: **warning**; plugin: `acme`; reads: headers; tags: `files`, `resume`; formerly: `acme/old`.\n\n"
        "## What it checks\n\nThat there is nothing of the sort.\n\n"
        "## Why it matters\n\nTraining would go wrong silently.\n\n"
        "## How to repair\n\nSave it again.\n"
    )


def test_a_page_names_the_layouts_that_the_rule_is_for(fake_rule, load):
    rule = fake_rule(applies_to=frozenset({"orbax", "keras"}))
    assert "reads: headers; layouts: `keras`, `orbax`.\n" in rule_page(rule_info(rule, load(rules=[rule])))


def test_every_layout_that_a_rule_is_for_exists():
    known = {layout.name for layout in installed_plugins().layouts}
    for rule in rule_infos(installed_plugins()):
        assert known.issuperset(rule.applies_to), rule.id


def test_the_whole_catalogue_is_ordered_and_complete():
    ids = [r.id for r in rule_infos(installed_plugins())]
    page = rules_page()
    assert re.findall(r"^### (\S+/\S+)$", page, re.MULTILINE) == ids == sorted(ids)
    assert re.findall(r"^## (\S+)/$", page, re.MULTILINE) == sorted({i.partition("/")[0] for i in ids})
    assert page == rules_page()
    assert "\n\n\n" not in page


def test_every_link_of_the_table_leads_to_a_heading():
    targets = re.findall(r"^\| \[(\S+)\]\(docs/rules\.md#(\S+)\) \|", rules_table("docs/rules.md"), re.MULTILINE)
    headings = re.findall(r"^### (.+)$", rules_page(), re.MULTILINE)
    assert [rule for rule, _ in targets] == headings
    assert all(anchor == rule.replace("/", "") for rule, anchor in targets)


def test_every_option_of_every_rule_is_described_in_words():
    for rule in rule_infos(installed_plugins()):
        for option in rule.options:
            assert option.description, (rule.id, option.name)
            assert option.kind != "any value", (rule.id, option.name)

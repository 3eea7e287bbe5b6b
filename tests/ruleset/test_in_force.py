"""What is in force besides the rules: ignores, what broken plugins leave, local files, requirements, limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from ckpt_rules import RulesetError, Severity, UsageError
from ckpt_rules.limits import Limits


def ids(ruleset):
    return [s.rule.id for s in ruleset.rules]


def notices(ruleset):
    assert {n.severity for n in ruleset.notices} <= {Severity.WARNING}
    return [n.message for n in ruleset.notices]


# Ignores

IGNORE = """
select: [acme/missing]
ignore:
  - rule: "*/missing"
    path: "legacy/**"
    tensor: "lora.*"
    reason: saved before we kept it
    expires: 2027-01-15
"""


def test_an_ignore_says_what_why_where_and_until_when(resolved):
    [ignore] = resolved(IGNORE).ignores
    assert (ignore.rule, ignore.path, ignore.tensor) == ("*/missing", "legacy/**", "lora.*")
    assert (ignore.reason, ignore.expires) == ("saved before we kept it", date(2027, 1, 15))
    assert str(ignore.origin) == "team.yaml:3"


def test_an_ignore_holds_on_its_last_day_and_not_after_it(resolved):
    assert notices(resolved(IGNORE, today=date(2027, 1, 15))) == []
    past = resolved(IGNORE, today=date(2027, 1, 16))
    assert past.ignores == ()
    assert notices(past) == [
        (
            "team.yaml:3: the ignore of */missing expired on 2027-01-15 and holds no longer; "
            "repair what it was about and delete it, or give it a new day"
        )
    ]


def test_an_inherited_ignore_does_not_hold(resolved, write):
    write("base.yaml", "select: [acme/missing]\nignore:\n  - {rule: acme/missing, reason: known}\n")
    ruleset = resolved("extends: [base.yaml]")
    assert ruleset.ignores == ()
    assert notices(ruleset) == [
        (
            "base.yaml:2: this ignore does not hold, for only the file that is named can silence findings; "
            "move it to team.yaml"
        )
    ]


# Plugins that did not come along


def broken():
    raise ImportError("no module named 'flux'")


@pytest.fixture
def partial(plugins_of, rules):
    """`house` is there, `acme` could not be loaded."""
    return plugins_of(house={"rules": rules[4:]}, acme={"rules": broken})


def test_rules_of_a_broken_plugin_are_missed_and_the_others_run(resolved, partial):
    text = "select:\n  - acme/*\n  - house/*\nrules:\n  acme/step-drift: error\nignore: [{rule: acme/x, reason: y}]\n"
    ruleset = resolved(text, plugins=partial)
    may = "; 'ckpt-rules rules' lists them all; the plugin acme, which could not be loaded, may have brought it"
    assert ids(ruleset) == ["house/missing"]
    assert ruleset.ignores == ()
    assert notices(ruleset) == [
        f"team.yaml:2: no rule matches 'acme/*'{may}",
        f"team.yaml:5: there is no rule 'acme/step-drift'{may}",
    ]


def test_a_family_that_is_there_is_whole_though_another_plugin_is_broken(resolved, partial):
    with pytest.raises(RulesetError) as error:
        resolved("select: [house/mising]", plugins=partial)
    assert str(error.value) == (
        "team.yaml:1:10: there is no rule 'house/mising' (did you mean 'house/missing'?); 'ckpt-rules rules' lists them "
        "all; the plugin acme, which could not be loaded, may have brought it"
    )


def test_what_takes_checks_away_is_not_missed(resolved, partial):
    text = "select: [house/*]\nexclude: [acme/missing, 'ac*']\nrules: {acme/no-fp32: off}"
    assert notices(resolved(text, plugins=partial)) == []


def test_a_glob_under_rules_is_a_mistake_though_a_plugin_is_broken(resolved, partial):
    with pytest.raises(
        RulesetError, match=r"^team\.yaml:1:9: 'acme/\*' is not an id of a rule; globs and tags belong under"
    ):
        resolved("rules: {'acme/*': error, house/missing: error}", plugins=partial)


def test_rules_of_a_plugin_that_is_left_out_are_missed_with_a_notice(resolved, plugins_of, rules):
    plugins = replace(plugins_of(house={"rules": rules[4:]}), disabled=frozenset({"acme"}))
    ruleset = resolved("select: ['acme/*', tag:numerics, house/missing]", plugins=plugins)
    left_out = "the plugin acme, which is left out of this run, may have brought it"
    assert ids(ruleset) == ["house/missing"]
    assert [m.rpartition("; ")[2] for m in notices(ruleset)] == [left_out, left_out]


def test_a_selection_that_is_empty_for_want_of_plugins_is_left_to_the_engine(resolved, partial):
    assert resolved("select: [acme/*]", plugins=partial).rules == ()


def test_a_call_that_selects_from_a_broken_plugin_is_told_of_it(resolved, partial):
    with pytest.raises(UsageError, match="the plugin acme, which could not be loaded, may have brought it"):
        resolved("select: [house/missing]", plugins=partial, select=["acme/*"])


# Local plugins and requirements

RULE = '''
from ckpt_rules import Problem, Rule


class Thing(Rule):
    """A thing is wrong.

    ## What it checks
    It.
    ## Why it matters
    So.
    ## How to repair
    Thus.
    """

    id = "ours/thing"

    def check(self, checkpoint):
        yield Problem(message="a thing is wrong")
'''


def test_a_local_file_brings_rules(resolved, write):
    write("house/our_rules.py", RULE)
    write("house/base.yaml", "plugins: [./our_rules.py]")
    ruleset = resolved("extends: [house/base.yaml]\nplugins: [house/../house/our_rules.py]\nselect: [ours/*]")
    assert [(s.rule.id, s.plugin) for s in ruleset.rules] == [("ours/thing", "house/our_rules.py")]


def test_a_local_file_that_raises_is_a_broken_plugin(resolved, write):
    write("our_rules.py", "1 / 0")
    ruleset = resolved("plugins: [./our_rules.py]\nrules: {ours/thing: error, acme/missing: error}")
    assert ids(ruleset) == ["acme/missing"]
    assert [p.crash.type for p in ruleset.plugins.broken] == ["ZeroDivisionError"]
    assert notices(ruleset) == [
        (
            "team.yaml:2: there is no rule 'ours/thing'; 'ckpt-rules rules' lists them all; the plugin our_rules.py, which "
            "could not be loaded, may have brought it"
        )
    ]


@pytest.mark.parametrize(
    "requirement",
    ["pluggy", "pluggy>=1", "Pluggy >= 1.0, < 99", "nothing-at-all; python_version < '3'", "ckpt_rules>=0.0.1"],
)
def test_what_is_installed_in_a_version_that_will_do_is_no_mistake(resolved, requirement):
    assert ids(resolved(f'select: [acme/missing]\nrequires: ["{requirement}"]')) == ["acme/missing"]


def test_a_requirement_of_an_inherited_file_counts(resolved, write):
    write("base.yaml", "select: [acme/missing]\nrequires: [ckpt-rules-none]")
    with pytest.raises(
        RulesetError, match=r"^base\.yaml:2:12: 'ckpt-rules-none' is required, but ckpt-rules-none is not"
    ):
        resolved("extends: [base.yaml]")


def test_the_same_is_resolved_twice(resolved):
    text = "rules: {acme/step-drift: {severity: info, options: {tolerance: 3}}}\nselect: ['*/missing']"
    assert resolved(text) == replace(resolved(text), plugins=resolved(text).plugins)


# Limits


def test_of_each_limit_the_last_writer_wins(resolved, write):
    write("base.yaml", "select: [acme/missing]\nlimits: {memory: 300, levels: 100}\n")
    limits = resolved("extends: [./base.yaml]\nlimits: {memory: 400}\n").limits
    assert limits == Limits(memory=400, levels=100)


def test_without_a_word_the_limits_are_the_defaults(resolved):
    assert resolved("select: [acme/missing]").limits == Limits()

"""What is in force: which rules, how severe, with what options, and who decided."""

from __future__ import annotations

import pytest
from pydantic import Field, field_validator, model_validator

from ckpt_rules import RulesetError, Severity, UsageError


def ids(ruleset):
    return [s.rule.id for s in ruleset.rules]


def the_rule(ruleset, rule_id):
    [found] = [s for s in ruleset.rules if s.rule.id == rule_id]
    return found


def notices(ruleset):
    assert {n.severity for n in ruleset.notices} <= {Severity.WARNING}
    return [n.message for n in ruleset.notices]


# Selecting


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("select: ['*/missing']", ["acme/missing", "house/missing"]),
        ("select: [house/*]", ["house/missing"]),
        ("select: ['acme/[mn]*', tag:resume]\nexclude: [acme/needs-limit]", None),
        ("select: ['tag:numerics']", ["acme/no-fp32", "acme/step-drift"]),
        ("select: ['*/missing']\nexclude: ['tag:resume']", ["acme/missing"]),
        ("select: [house/missing]\nexclude: ['*/missing']\nrules: {acme/missing: info}", ["acme/missing"]),
        ("select: ['*/missing']\nrules: {house/missing: off}", ["acme/missing"]),
        ("rules: {acme/missing: {}}", ["acme/missing"]),
    ],
)
def test_what_is_selected(resolved, text, selected):
    everything_but_one = ["acme/missing", "acme/no-fp32", "acme/step-drift", "house/missing"]
    assert ids(resolved(text)) == (everything_but_one if selected is None else selected)


def test_rules_come_in_the_order_of_their_ids_with_their_plugin(resolved):
    ruleset = resolved("rules: {house/missing: info, acme/no-fp32: error, acme/missing: warning}")
    assert [(s.rule.id, s.plugin, s.severity) for s in ruleset.rules] == [
        ("acme/missing", "acme", Severity.WARNING),
        ("acme/no-fp32", "acme", Severity.ERROR),
        ("house/missing", "house", Severity.INFO),
    ]


def test_a_severity_is_the_rules_own_unless_the_file_sets_one(resolved):
    assert the_rule(resolved("select: [acme/missing]"), "acme/missing").severity is None
    assert the_rule(resolved("rules: {acme/missing: {severity: info}}"), "acme/missing").severity is Severity.INFO


def test_off_forgets_the_severity_that_was_set_before(resolved, write):
    write("a.yaml", "rules: {acme/missing: info, acme/no-fp32: error}")
    write("b.yaml", "extends: [a.yaml]\nrules: {acme/missing: off}")
    ruleset = resolved("extends: [b.yaml]\nselect: [acme/missing]")
    missing = the_rule(ruleset, "acme/missing")
    assert (missing.severity, missing.decided, str(missing.selected_by)) == (None, {}, "team.yaml:2")


def test_who_selected_is_the_last_line_that_did(resolved):
    ruleset = resolved("select:\n  - '*/missing'\n  - acme/missing\nrules:\n  house/missing:\n    severity: info\n")
    assert {s.rule.id: str(s.selected_by) for s in ruleset.rules} == {
        "acme/missing": "team.yaml:3",
        "house/missing": "team.yaml:5",
    }
    assert str(the_rule(ruleset, "house/missing").decided["severity"]) == "team.yaml:6"


# Types


@pytest.mark.parametrize(
    ("written", "option", "value"),
    [
        ("tolerance: 8", "tolerance", 8),
        ("tolerance: '8'", "tolerance", 8),
        ("ratio: 1e-3", "ratio", 0.001),
        ("ratio: .5", "ratio", 0.5),
        ("ratio: null", "ratio", None),
        ("ratio: ~", "ratio", None),
        ("mode: mean", "mode", "mean"),
        ("names: [off, no, 1e-3, 012, 'null']", "names", ("off", "no", "1e-3", "012", "null")),
        ("names: []", "names", ()),
    ],
)
def test_options_get_the_types_of_the_rule_not_of_yaml(resolved, written, option, value):
    drift = the_rule(resolved(f"rules: {{acme/step-drift: {{options: {{{written}}}}}}}"), "acme/step-drift")
    assert getattr(drift.rule, option) == value
    assert type(getattr(drift.rule, option)) is type(value)


def test_a_rule_without_options_is_as_good_as_one_that_was_validated(resolved, rules):
    drift = the_rule(resolved("select: [acme/step-drift]"), "acme/step-drift")
    assert drift.rule == rules[0]()
    assert drift.rule.model_dump() == rules[0]().model_dump()


def test_what_a_rule_demands_of_its_options_together_is_told_at_the_rule(resolved, plugins_of, fake_rule):
    base = fake_rule(
        "ours/range",
        options={"low": (int, Field(default=0, description="")), "high": (int, Field(default=9, description=""))},
    )

    class Range(base):
        __doc__ = base.__doc__

        @field_validator("low")
        @classmethod
        def _even(cls, low):
            if low % 2:
                raise ValueError("it must be even")
            return low

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError("low is above high")
            if self.low == self.high:
                raise RuntimeError("no width")
            return self

    plugins = plugins_of(ours={"rules": [Range]})
    for options, message in {
        "{low: 10}": "team.yaml:2:3: the options of ours/range don't fit together: low is above high",
        "{low: 3}": "team.yaml:2:31: the option low of ours/range is '3': it must be even",
        "{low: 4, high: 4}": "team.yaml:2:3: ours/range crashed when it was given its options: RuntimeError: no width",
    }.items():
        with pytest.raises(RulesetError) as error:
            resolved(f"rules:\n  ours/range: {{options: {options}}}\n", plugins=plugins)
        assert str(error.value) == message
    assert the_rule(resolved("select: [ours/range]", plugins=plugins), "ours/range").rule.high == 9


def test_options_of_a_rule_that_is_off_are_checked_too(resolved):
    with pytest.raises(RulesetError, match=r"team\.yaml:1:83: the option tolerance"):
        resolved("rules: {acme/missing: info, acme/step-drift: {severity: off, options: {tolerance: x}}}")


# Strict


@pytest.mark.parametrize(
    ("written", "argument", "strict"),
    [
        (None, None, False),
        ("true", None, True),
        ("off", None, False),
        ("true", False, False),
        ("false", True, True),
        (None, True, True),
    ],
)
def test_strict_is_what_the_call_says_else_the_file(resolved, written, argument, strict):
    text = "select: [acme/missing]\n" + (f"strict: {written}\n" if written else "")
    assert resolved(text, strict=argument).strict is strict


# Narrowing from the call


def test_select_runs_only_these_of_all_installed_rules_with_the_rulesets_severities(resolved):
    text = "rules: {acme/step-drift: {severity: info, options: {tolerance: 3}}, acme/missing: off}"
    ruleset = resolved(text, select=["acme/step-drift", "*/missing"])
    assert ids(ruleset) == ["acme/missing", "acme/step-drift", "house/missing"]
    drift = the_rule(ruleset, "acme/step-drift")
    assert (drift.severity, drift.rule.tolerance, str(drift.selected_by)) == (Severity.INFO, 3, "--select")
    assert not ruleset.narrowed


def test_exclude_drops(resolved):
    ruleset = resolved("select: ['*/missing']", exclude=["house/*"])
    assert (ids(ruleset), ruleset.narrowed) == (["acme/missing"], True)


def test_excluding_what_is_not_selected_narrows_nothing(resolved):
    ruleset = resolved("select: ['*/missing']", exclude=["tag:numerics"])
    assert (ids(ruleset), ruleset.narrowed) == (["acme/missing", "house/missing"], False)


def test_nothing_may_be_left(resolved):
    ruleset = resolved("select: ['*/missing']", select=["acme/missing"], exclude=["acme/*"])
    assert (ruleset.rules, ruleset.narrowed) == ((), True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"select": ["acme/mising"]},
            "--select: there is no rule 'acme/mising' (did you mean 'acme/missing'?); 'ckpt-",
        ),
        ({"exclude": ["hous/*"]}, "--exclude: no rule matches 'hous/*' (did you mean 'house/*'?); 'ckpt-rules rules'"),
        ({"select": ["tag:x"]}, "--select: no rule has the tag 'x'; there are tag:numerics and tag:resume"),
        ({"exclude": [""]}, "--exclude: there is no rule ''; 'ckpt-rules rules' lists them all"),
    ],
)
def test_a_pattern_that_matches_nothing_is_a_usage_error(resolved, arguments, message):
    with pytest.raises(UsageError) as error:
        resolved("select: [acme/missing]", **arguments)
    assert str(error.value).startswith(message)


def test_mistakes_in_the_file_come_before_those_in_the_call(resolved):
    with pytest.raises(RulesetError):
        resolved("select: [acme/mising]", select=["nothing"])


def test_a_rule_that_only_the_call_selects_must_have_its_options(resolved):
    with pytest.raises(RulesetError) as error:
        resolved("select: [acme/missing]", select=["acme/needs-limit"])
    assert str(error.value).startswith("--select: the option limit of acme/needs-limit is missing")


# Former ids


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rules:\n  acme/drift: info\n", "team.yaml:2"),
        ("select:\n  - acme/drift\n", "team.yaml:2"),
        ("select: [acme/step-drift]\nignore: [{rule: acme/drift, reason: known}]\n", "team.yaml:2"),
    ],
)
def test_a_former_id_is_taken_with_a_notice(resolved, text, place):
    ruleset = resolved(text)
    assert ids(ruleset) == ["acme/step-drift"]
    assert notices(ruleset) == [f"{place}: 'acme/drift' is now called 'acme/step-drift'; write that instead"]
    assert all(i.rule == "acme/step-drift" for i in ruleset.ignores)


def test_a_former_id_in_the_call_is_taken_with_a_notice(resolved):
    ruleset = resolved("select: [acme/missing]", select=["acme/drift"])
    assert ids(ruleset) == ["acme/step-drift"]
    assert notices(ruleset) == ["--select: 'acme/drift' is now called 'acme/step-drift'; write that instead"]

"""How files build on each other: left to right, then the file itself, and the last writer wins."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ckpt_rules import RulesetError, Severity, UsageError
from ckpt_rules.ruleset import builtin_rulesets, resolve

TODAY = date(2027, 1, 15)


def ids(ruleset):
    return [s.rule.id for s in ruleset.rules]


def the_rule(ruleset, rule_id):
    [found] = [s for s in ruleset.rules if s.rule.id == rule_id]
    return found


def test_selections_add_up(resolved, write):
    write("a.yaml", "select: [acme/missing]")
    write("b.yaml", "rules: {acme/no-fp32: warning}")
    assert ids(resolved("extends: [./a.yaml, b.yaml]\nselect: ['tag:resume']")) == [
        "acme/missing",
        "acme/no-fp32",
        "acme/step-drift",
        "house/missing",
    ]


def test_for_every_leaf_the_last_writer_wins(resolved, write):
    write("a.yaml", "rules: {acme/step-drift: {severity: error, options: {tolerance: 1, names: [a, b], ratio: 0.1}}}")
    write("b.yaml", "rules: {acme/step-drift: {options: {tolerance: 2}}}\nstrict: true")
    ruleset = resolved(
        """
        extends: [a.yaml, b.yaml]
        rules:
          acme/step-drift:
            options:
              names: [c]
        """
    )
    drift = the_rule(ruleset, "acme/step-drift")
    assert (drift.severity, drift.rule.tolerance, drift.rule.names, drift.rule.ratio) == (
        Severity.ERROR,
        2,
        ("c",),
        0.1,
    )
    assert str(drift.selected_by) == "team.yaml:3"
    assert {what: str(origin) for what, origin in drift.decided.items()} == {
        "severity": "a.yaml:1",
        "tolerance": "b.yaml:1",
        "names": "team.yaml:5",
        "ratio": "a.yaml:1",
    }
    assert ruleset.strict


@pytest.mark.parametrize(("order", "strict"), [("a, b", False), ("b, a", True)])
def test_files_apply_left_to_right(resolved, write, order, strict):
    write("a.yaml", "select: [acme/missing]\nstrict: true")
    write("b.yaml", "exclude: [acme/missing]\nselect: [acme/no-fp32]\nstrict: false")
    first, last = order.split(", ")
    ruleset = resolved(f"extends: [./{first}.yaml, ./{last}.yaml]")
    assert ruleset.strict is strict
    assert ids(ruleset) == (["acme/missing", "acme/no-fp32"] if last == "a" else ["acme/no-fp32"])


def test_a_child_selects_again_what_its_parent_excluded(resolved, write):
    write("a.yaml", "select: ['acme/*']\nexclude: [acme/needs-limit, acme/missing]")
    assert "acme/missing" in ids(resolved("extends: [a.yaml]\nselect: [acme/missing]"))
    assert "acme/missing" in ids(resolved("extends: [a.yaml]\nrules: {acme/missing: {}}"))


def test_a_child_excludes_what_its_parent_names(resolved, write):
    write("a.yaml", "rules: {acme/missing: error, acme/no-fp32: error}")
    assert ids(resolved("extends: [a.yaml]\nexclude: ['*/missing']")) == ["acme/no-fp32"]


def test_a_ruleset_that_is_reached_twice_applies_twice(resolved, write):
    write("base.yaml", "select: [acme/missing, acme/no-fp32]")
    write("a.yaml", "extends: [base.yaml]\nexclude: [acme/missing]")
    assert ids(resolved("extends: [base.yaml, a.yaml]")) == ["acme/no-fp32"]
    assert ids(resolved("extends: [a.yaml, base.yaml]")) == ["acme/missing", "acme/no-fp32"]


def test_paths_are_relative_to_the_file_that_writes_them(resolved, write):
    write("house/base.yaml", "extends: [../other/more.yaml]")
    write("other/more.yaml", "rules:\n  acme/missing: info")
    ruleset = resolved("extends: [house/base.yaml]")
    assert str(the_rule(ruleset, "acme/missing").selected_by) == "house/../other/more.yaml:2"


def test_a_circle_prints_the_chain(resolved, write):
    write("a.yaml", "description: A\nextends:\n  - ./b.yaml\n")
    write("b.yaml", "extends: [./a.yaml]")
    with pytest.raises(RulesetError) as error:
        resolved("extends: [a.yaml]")
    assert str(error.value) == "b.yaml:1:11: extends goes in a circle: a.yaml:3 -> b.yaml:1 -> a.yaml"


def test_a_circle_through_a_link_is_a_circle(resolved, write, folder):
    (folder / "other.yaml").symlink_to("team.yaml")
    with pytest.raises(RulesetError, match=r"^team.yaml:1:11: extends goes in a circle: team.yaml:1 -> team.yaml$"):
        resolved("extends: [other.yaml]")


def test_doubling_at_every_level_ends(resolved, write):
    for level in range(30):
        write(f"l{level}.yaml", f"extends: [l{level + 1}.yaml, ./l{level + 1}.yaml]")
    write("l30.yaml", "select: [acme/missing]")
    with pytest.raises(
        RulesetError, match="this extends more than 200 rulesets, counting one that is reached twice as"
    ):
        resolved("extends: [l0.yaml]")


def test_a_long_chain_ends(resolved, write):
    for level in range(400):
        write(f"l{level}.yaml", f"extends: [l{level + 1}.yaml]\nselect: [acme/missing]")
    with pytest.raises(RulesetError, match=r"l198\.yaml:1:11: this extends more than 200 rulesets"):
        resolved("extends: [l0.yaml]")


def test_mistakes_in_an_inherited_file_are_told_in_that_file(resolved, write):
    write("a.yaml", "select: [acme/mising]")
    with pytest.raises(RulesetError, match=r"^a\.yaml:1:10: there is no rule 'acme/mising'"):
        resolved("extends: [a.yaml]")


def test_a_file_that_is_reached_twice_tells_its_mistakes_once(resolved, write):
    write("a.yaml", "select: [acme/mising]\nrules: {acme/drift: info}")
    with pytest.raises(RulesetError) as error:
        resolved("extends: [a.yaml, ./a.yaml]")
    assert len(error.value.problems) == 1


@pytest.fixture
def with_rulesets(plugins_of, rules, write):
    house = write("installed/house.yaml", "description: Ours\nselect: [house/missing]\nextends: [./more.yaml]")
    write("installed/more.yaml", "select: [acme/missing]")
    return plugins_of(acme={"rules": rules[:4]}, house={"rules": rules[4:], "rulesets": {"strict": house}})


def test_a_plugins_ruleset_is_named_with_its_plugin(with_rulesets, resolved):
    ruleset = resolve("house:strict", with_rulesets, today=TODAY)
    assert (ruleset.name, ruleset.description, ids(ruleset)) == (
        "house:strict",
        "Ours",
        ["acme/missing", "house/missing"],
    )
    assert ids(resolved("extends: ['house:strict']", plugins=with_rulesets)) == ["acme/missing", "house/missing"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "defalt",
            (
                "there is no ruleset 'defalt' (did you mean 'default'?); there are ci, deep, default, inference, publish, quick and house:strict, "
                "and paths such as ./team.yaml"
            ),
        ),
        (
            "house:strikt",
            (
                "there is no ruleset 'house:strikt' (did you mean 'house:strict'?); there are ci, deep, default, inference, publish, quick and "
                "house:strict, and paths such as ./team.yaml"
            ),
        ),
        (
            "team",
            (
                "there is no ruleset 'team'; for the file of that name, write './team'; there are ci, deep, default, inference, publish, quick and "
                "house:strict, and paths such as ./team.yaml"
            ),
        ),
        (
            "",
            "there is no ruleset ''; there are ci, deep, default, inference, publish, quick and house:strict, and paths such as ./team.yaml",
        ),
    ],
)
def test_an_unknown_name_is_a_usage_error_with_the_nearest(with_rulesets, write, name, message):
    write("team", "select: [acme/missing]")
    with pytest.raises(UsageError) as error:
        resolve(name, with_rulesets, today=TODAY)
    assert str(error.value) == message


def test_a_broken_plugin_is_named_where_its_ruleset_is_missing(plugins_of):
    def broken():
        raise ImportError("no module named 'flux'")

    with pytest.raises(UsageError) as error:
        resolve("house:strict", plugins_of(house={"rulesets": broken}), today=TODAY)
    assert str(error.value) == (
        "there is no ruleset 'house:strict'; the plugin house (ckpt-rules-house 1.2) could not be loaded: "
        "ImportError: no module named 'flux'; there are ci, deep, default, inference, publish and quick, and paths such as ./team.yaml"
    )


def test_only_what_looks_like_a_path_is_one(write, plugins):
    write("default", "select: [acme/missing]")
    assert ids(resolve("./default", plugins, today=TODAY)) == ["acme/missing"]
    assert ids(resolve(Path("default"), plugins, today=TODAY)) == ["acme/missing"]
    with pytest.raises(RulesetError, match=r"default\.yaml:\d+:\d+: no rule matches 'files/\*'"):
        resolve("default", plugins, today=TODAY)


def test_built_in_rulesets_are_the_files_of_the_checkout():
    assert {name: path.name for name, path in builtin_rulesets().items()} == {
        "ci": "ci.yaml",
        "deep": "deep.yaml",
        "default": "default.yaml",
        "inference": "inference.yaml",
        "publish": "publish.yaml",
        "quick": "quick.yaml",
    }

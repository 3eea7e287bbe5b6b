"""The rulesets that come with ckpt-rules, and the JSON Schema of their file."""

from __future__ import annotations

import json
import re
from datetime import date
from enum import IntEnum
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import Field

from ckpt_rules import Reads, Severity
from ckpt_rules.plugins import Plugins, installed_plugins
from ckpt_rules.ruleset import builtin_rulesets, resolve, ruleset_schema

TODAY = date(2027, 1, 15)

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "rulesets.md"
YAML = re.compile(r"^```yaml\n(?P<text>(?:# (?P<file>\w+\.yaml)\n)?.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def ours():
    """The plugins that come with ckpt-rules, whatever else is installed."""
    installed = installed_plugins()
    return Plugins(tuple(p for p in installed.plugins if p.distribution == "ckpt-rules"), installed.manager)


def in_force(name, plugins):
    ruleset = resolve(name, plugins, today=TODAY)
    assert ruleset.notices == ()
    return {s.rule.id for s in ruleset.rules}


def test_default_is_every_rule_that_reads_no_tensor_bytes(ours):
    rules = {i: rule for i, (rule, _) in ours.rules.items() if rule.reads is not Reads.BYTES}
    every = {i for i, rule in rules.items() if not rule.compares or "history" in rule.tags}
    asked_for = {"integrity/unsigned", "weights/not-loadable"}
    assert in_force("default", ours) == {i for i in every - asked_for if not i.startswith("publish/")}


def test_deep_is_default_and_every_rule_that_reads_tensor_bytes_or_an_earlier_save_but_those_that_start_a_loader(ours):
    rules = {i: rule for i, (rule, _) in ours.rules.items() if not i.startswith("load/")}
    more = {i for i, rule in rules.items() if rule.reads is Reads.BYTES or rule.compares}
    assert in_force("deep", ours) == in_force("default", ours) | more


@pytest.mark.parametrize("name", ["quick", "default", "deep"])
def test_where_an_earlier_save_is_named_the_rules_that_compare_headers_run_with_any_ruleset(ours, name):
    comparing = {i for i, (rule, _) in ours.rules.items() if rule.compares and rule.reads is not Reads.BYTES}
    chosen = {s.rule.id for s in resolve(name, ours, compare=True, today=TODAY).rules}
    assert comparing
    assert chosen == in_force(name, ours) | comparing


def test_inference_asks_for_nothing_that_only_a_resume_needs(ours):
    asked = in_force("inference", ours)
    assert {i.partition("/")[0] for i in asked} == {
        "config",
        "files",
        "pickle",
        "ranks",
        "safetensors",
        "state",
        "weights",
        "zip",
    }
    assert {i for i in asked if i.startswith("state/")} == {
        "state/missing-module",
        "state/needs-unsafe-load",
        "state/unreadable",
    }
    assert {i for i in asked if i.startswith("ranks/")} == {"ranks/chunk-coverage", "ranks/layer-range"}
    assert resolve("inference", ours, today=TODAY).purpose == "load"


def test_publish_is_inference_and_more(ours):
    more = in_force("publish", ours) - in_force("inference", ours)
    assert more == {i for i in ours.rules if i.startswith("publish/")}
    assert resolve("publish", ours, today=TODAY).purpose == "publish"


def test_quick_leaves_out_what_only_informs_and_what_takes_long(ours):
    left_out = in_force("default", ours) - in_force("quick", ours)
    assert left_out == {
        "files/duplicate-format",
        "optimizer/moment-dtype",
        "previous/lacks-file",
        "previous/other-history",
        "previous/plan-changed",
        "previous/progress-went-back",
        "previous/run-ahead",
        "previous/stale-state",
        "progress/finished",
        "rng/missing",
        "scheduler/exhausted",
        "state/missing-module",
        "weights/dtype-vs-config",
        "weights/duplicate-tensor",
        "weights/index-total",
        "weights/misspelt-tensor",
        "weights/mixed-dtypes",
        "weights/shape-vs-config",
        "weights/storage-bloat",
    }
    errors = {i for i in left_out if ours.rules[i][0].severity is Severity.ERROR}
    assert errors == {"previous/progress-went-back", "previous/stale-state", "weights/shape-vs-config"}


def test_ci_is_default_strict(ours):
    ci, default = (resolve(name, ours, today=TODAY) for name in ("ci", "default"))
    assert [s.rule for s in ci.rules] == [s.rule for s in default.rules]
    assert (ci.strict, default.strict) == (True, False)


def test_rules_of_third_parties_are_not_in_default(ours, plugins_of, rules):
    both = Plugins((*ours.plugins, *plugins_of(acme={"rules": rules[:3]}).plugins), ours.manager)
    assert in_force("default", both) == in_force("default", ours)


@pytest.mark.parametrize("name", ["quick", "default", "deep", "ci"])
def test_a_built_in_ruleset_is_a_few_lines_with_a_description(ours, name):
    text = builtin_rulesets()[name].read_text("utf-8")
    assert len(text.splitlines()) <= 24
    assert resolve(name, ours, today=TODAY).description


# Documentation


def examples():
    return [(m["file"], m["text"]) for m in YAML.finditer(PAGE.read_text("utf-8"))]


def test_every_example_of_the_page_resolves(ours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("our_rules.py").write_text(re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1], "utf-8")
    files = [(file or f"example-{i}.yaml", text) for i, (file, text) in enumerate(examples())]
    for file, text in files:
        Path(file).write_text(text, "utf-8")
    assert len(files) >= 5
    for file, _ in files:
        assert resolve(file, ours, today=TODAY).rules, file
        validate(yaml.load(Path(file).read_text("utf-8"), Loader=Json), ours, lenient=True)


def test_every_key_has_its_place_in_the_page(ours):
    headings = re.findall(r"^## `(\w+)`", PAGE.read_text("utf-8"), re.MULTILINE)
    assert headings == list(ruleset_schema(ours)["properties"])


# JSON Schema


class Json(yaml.SafeLoader):
    """YAML as editors read it: by the rules of 1.2, where `off` is text and a day is, too."""


Json.yaml_implicit_resolvers = {
    first: [(tag, r) for tag, r in resolvers if not tag.endswith((":timestamp", ":bool", ":int"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Json.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
Json.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))


def validate(data, plugins, *, lenient=False):
    schema = ruleset_schema(plugins)
    if lenient:  # a file of the page may have rules of its own
        schema["properties"]["rules"]["additionalProperties"] = True
        schema["properties"]["select"]["items"] = schema["properties"]["exclude"]["items"] = {"type": "string"}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", ["quick", "default", "ci"])
def test_built_in_rulesets_are_valid(ours, name):
    validate(yaml.load(builtin_rulesets()[name].read_text("utf-8"), Loader=Json), ours)


@pytest.mark.parametrize(
    "right",
    [
        {"extends": ["default", "./base.yaml", "base.yml"]},
        {"select": ["acme/*", "tag:resume", "acme/missing", "*/missing", "acme/[a-f]*"]},
        {"rules": {"acme/missing": "off", "acme/no-fp32": {"severity": "info"}, "house/missing": {}}},
        {"rules": {"acme/step-drift": {"options": {"tolerance": 3, "ratio": None, "names": ["a"], "mode": "mean"}}}},
        {"rules": {"acme/needs-limit": {"options": {"limit": 3}}}},
        {"ignore": [{"rule": "acme/*", "reason": "known", "path": "x", "tensor": "y", "expires": "2027-06-30"}]},
        {"strict": True, "description": "x", "requires": ["a>=1"], "plugins": ["./x.py"]},
    ],
)
def test_what_resolves_is_valid(plugins, right):
    validate(right, plugins)


@pytest.mark.parametrize(
    "wrong",
    [
        {"selct": []},
        {"select": "acme/*"},
        {"select": ["acme/mising"]},
        {"select": ["tag:numeric"]},
        {"extends": ["defualt"]},
        {"plugins": ["acme"]},
        {"rules": ["acme/missing"]},
        {"rules": {"acme/mising": "error"}},
        {"rules": {"acme/missing": "fatal"}},
        {"rules": {"acme/missing": None}},
        {"rules": {"acme/missing": {"severity": None}}},
        {"rules": {"acme/missing": {"options": {"tolerance": 3}}}},
        {"rules": {"acme/step-drift": {"options": {"tolerance": -3}}}},
        {"rules": {"acme/step-drift": {"options": {"mode": "median"}}}},
        {"ignore": [{"rule": "acme/missing"}]},
        {"ignore": [{"rule": "acme/mising", "reason": "known"}]},
        {"ignore": [{"rule": "acme/missing", "reason": ""}]},
        {"ignore": [{"rule": "acme/missing", "reason": "known", "expires": "soon"}]},
        {"ignore": [{"rule": "acme/missing", "reason": "known", "expires": None}]},
        {"strict": "maybe"},
    ],
)
def test_what_does_not_resolve_is_not_valid(plugins, wrong):
    with pytest.raises(jsonschema.ValidationError):
        validate(wrong, plugins)


def test_rules_and_options_say_in_the_schema_what_they_are(plugins):
    schema = ruleset_schema(plugins)
    entry = schema["properties"]["rules"]["properties"]["acme/step-drift"]
    [_, long] = entry["anyOf"]
    options = schema["$defs"]["options"][long["properties"]["options"]["$ref"].rpartition("/")[2]]
    assert entry["description"] == "Something is bad."
    assert options["properties"]["tolerance"] == {
        "default": 20,
        "description": "Updates that may be missing.",
        "minimum": 0,
        "type": "integer",
    }


def test_two_rule_classes_of_one_name_have_a_schema_each(plugins_of, fake_rule):
    one = fake_rule("a/missing", options={"x": (int, Field(description="X."))})
    two = fake_rule("b/missing", options={"y": (int, Field(description="Y."))})
    one.__name__ = two.__name__ = one.__qualname__ = two.__qualname__ = "Missing"
    two.__module__ = "elsewhere"
    validate({"rules": {"b/missing": {"options": {"y": 1}}}}, plugins_of(a={"rules": [one]}, b={"rules": [two]}))


def test_an_option_without_a_json_type_may_be_anything(plugins_of, fake_rule):
    class Level(IntEnum):
        LOW = 1

    odd = fake_rule("a/odd", options={"pattern": (type, Field(default=int, description="X.")), "n": (Level, Level.LOW)})
    validate({"rules": {"a/odd": {"options": {"pattern": "anything", "n": 1}}}}, plugins_of(a={"rules": [odd]}))


def test_the_schema_beside_the_built_in_rulesets_is_up_to_date(ours):
    """`make docs` writes it."""
    written = json.loads((REPO / "rulesets" / "ruleset.schema.json").read_text("utf-8"))
    assert written.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert written == ruleset_schema(ours)

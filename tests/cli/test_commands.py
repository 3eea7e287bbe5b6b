"""The commands beside `verify`: what they print, in each of their formats."""

from __future__ import annotations

import json

import pytest

from ckpt_rules.inspection.model import Inspection


class TestInspect:
    def test_text(self, run, make_checkpoint):
        ended = run("inspect", make_checkpoint(epoch=3, step=394, total_batches=1000).path)
        assert ended.code == 0
        assert "progress    epoch 3, 394 of 1,000 batches done (39.4 %)" in ended.out.splitlines()
        assert "resume      epoch 3 continues: batches 0 to 393 are skipped, 394 to 999 are" in ended.out

    def test_json(self, run, make_checkpoint):
        ck = make_checkpoint(epoch=3, step=394, total_batches=1000)
        found = Inspection.model_validate_json(run("inspect", ck.path, "--format", "json").out)
        assert found.resume.trained == 606

    def test_a_damaged_checkpoint_can_be_inspected(self, run, make_checkpoint):
        ck = make_checkpoint().truncate("training_state.pth", keep=0.5)
        ended = run("inspect", ck.path)
        assert ended.code == 0
        assert "optimizer   not known: " in ended.out

    def test_a_path_that_is_not_there(self, run, tmp_path):
        (tmp_path / "step-5").mkdir()
        ended = run("inspect", tmp_path / "step-50")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"error: {tmp_path}/step-50 does not exist; did you mean {tmp_path}/step-5?\n"


class TestRules:
    def test_the_table_is_one_line_a_rule_when_nobody_is_looking(self, run):
        lines = run("rules").out.splitlines()
        (empty,) = [line for line in lines if line.startswith("files/empty ")]
        assert empty.split()[1] == "error"
        assert len([line for line in lines if line.startswith(("files/", "weights/", "optimizer/"))]) > 25

    @pytest.mark.parametrize(
        ("pattern", "rules"), [("rng/*", {"rng/bad-state", "rng/missing"}), ("rng/missing", {"rng/missing"})]
    )
    def test_a_glob(self, run, pattern, rules):
        assert {r["id"] for r in run("rules", pattern, "-f", "json").json} == rules

    def test_a_tag(self, run):
        rules = run("rules", "tag:resume", "--format", "json").json
        assert rules
        assert all("resume" in r["tags"] for r in rules)

    def test_a_glob_that_matches_nothing(self, run):
        ended = run("rules", "file/*")
        assert (ended.code, ended.out) == (2, "")
        assert "no rule matches 'file/*'" in ended.err
        assert "did you mean 'files/*'?" in ended.err

    def test_json_holds_the_whole_page(self, run):
        (rule,) = run("rules", "optimizer/step-drift", "--format", "json").json
        assert list(rule["sections"]) == ["What it checks", "Why it matters", "How to repair"]
        (tolerance,) = [o for o in rule["options"] if o["name"] == "tolerance"]
        assert tolerance["default"] == 20

    def test_markdown(self, run):
        text = run("rules", "files/*", "--format", "markdown").out
        assert text.startswith("## files/changed-while-read\n")
        assert text.count("### Why it matters") == 17

    def test_a_broken_plugin_is_named_and_the_rest_listed(self, run, install):
        install(broken=ImportError("no module\x1b[31m"))
        ended = run("rules", "files/empty")
        assert ended.out.splitlines()[1].startswith("files/empty ")
        assert ended.err == (
            "warning: the plugin broken (ckpt-rules-broken 1.2) could not be loaded: ImportError: no module\\x1b[31m\n"
        )


class TestRule:
    def test_its_page(self, run):
        lines = run("rule", "optimizer/step-drift").out.splitlines()
        assert lines[0] == "# optimizer/step-drift"
        headings = [line for line in lines if line.startswith("## ")]
        assert headings == ["## What it checks", "## Why it matters", "## How to repair", "## Options"]
        assert any(line.startswith("| `tolerance` | whole number, at least 0 | 20 |") for line in lines)

    def test_headings_are_bold_where_colour_is_wanted(self, run, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert run("rule", "files/empty").out.startswith("\x1b[1m# files/empty\x1b[0m\n")

    def test_a_misspelt_id_proposes_the_nearest(self, run):
        ended = run("rule", "optimiser/step-drift")
        assert (ended.code, ended.out) == (2, "")
        assert "there is no rule 'optimiser/step-drift'" in ended.err
        assert "did you mean 'optimizer/step-drift'?" in ended.err

    def test_a_former_id_finds_the_rule(self, run, install, fake_rule):
        install(acme={"rules": [fake_rule("acme/new", former_ids=("acme/old",))]})
        ended = run("rule", "acme/old")
        assert (ended.code, ended.err) == (0, "acme/old is called acme/new now\n")
        assert ended.out.startswith("# acme/new\n")
        assert "formerly: `acme/old`" in ended.out


class TestRulesets:
    def test_the_list(self, run):
        lines = run("rulesets").out.splitlines()
        assert lines[0].split() == ["ruleset", "rules", "strict", "description"]
        assert {line.split()[0]: line.split()[2] for line in lines[1:]} == {
            "ci": "yes", "deep": "no", "default": "no", "inference": "no", "publish": "no", "quick": "no",
        }  # fmt: skip

    def test_those_of_plugins_and_a_broken_one(self, run, install, tmp_path):
        (tmp_path / "house.yaml").write_text("description: Ours\nextends: [default]\n")
        (tmp_path / "bad.yaml").write_text("descripton: Ours\n")
        files = {"house": tmp_path / "house.yaml", "bad": tmp_path / "bad.yaml"}
        install(acme={"rulesets": lambda: files})
        ended = run("rulesets")
        assert ended.code == 2
        assert any(line.startswith("acme:house ") and line.endswith(" Ours") for line in ended.out.splitlines())
        assert f"{tmp_path}/bad.yaml:1:1: " in ended.out
        assert run("rulesets", "show", "acme:house").code == 0
        entries = {r["name"]: r for r in run("rulesets", "--format", "json").json}
        assert entries["acme:bad"]["error"].startswith(f"{tmp_path}/bad.yaml:1:1: ")
        assert entries["acme:house"]["file"] == str(tmp_path / "house.yaml")

    def test_show_says_what_is_in_force_and_who_decided(self, run, tmp_path):
        team = tmp_path / "team.yaml"
        team.write_text(
            "description: Ours\n"
            "extends: [default]\n"
            "strict: true\n"
            "rules:\n"
            "  optimizer/step-drift:\n"
            "    severity: info\n"
            "    options: {tolerance: 8}\n"
            "ignore:\n"
            "  - {rule: rng/missing, reason: known}\n"
        )
        view = run("rulesets", "show", team, "--format", "json").json
        assert (view["description"], view["strict"]) == ("Ours", True)
        rules = {r["rule"]: r for r in view["rules"]}
        drift = rules["optimizer/step-drift"]
        assert (drift["severity"], drift["options"]["tolerance"]) == ("info", 8)
        assert drift["decided_by"]["severity"] == f"{team}:6"
        assert drift["decided_by"]["tolerance"] == f"{team}:7"
        assert rules["scheduler/missing"]["severity"] == "error"
        assert [(i["rule"], i["decided_by"]) for i in view["ignores"]] == [("rng/missing", f"{team}:9")]
        text = run("rulesets", "show", team).out
        assert text.startswith(f"{team}: Ours, strict: warnings are errors\n")
        (line,) = [line for line in text.splitlines() if line.startswith("optimizer/step-drift ")]
        assert "tolerance=8" in line
        assert f"severity: {team}:6" in line

    def test_every_mistake_of_a_file_with_its_place(self, run, tmp_path):
        team = tmp_path / "team.yaml"
        team.write_text("extends: [defualt]\nrules:\n  files/emtpy: error\n  files/empty: fatal\n")
        ended = run("rulesets", "show", team)
        assert (ended.code, ended.out) == (2, "")
        assert f"{team}:1:" in ended.err
        assert f"{team}:4:" in ended.err
        assert "did you mean 'default'?" in ended.err


class TestPlugins:
    def test_text(self, run):
        lines = run("plugins").out.splitlines()
        assert lines[0].split() == ["plugin", "version", "distribution", "brings"]
        named = {line.split()[0]: line for line in lines[1:]}
        assert {"files", "safety", "torch", "training", "weights"} <= set(named)
        assert list(named) == sorted(named)
        assert named["torch"].endswith("1 layout: plain-torch")

    def test_json(self, run, install, fake_rule):
        install(acme={"rules": [fake_rule("acme/bad")], "reporters": lambda: {"terse": str}})
        (acme,) = [p for p in run("plugins", "--format", "json").json if p["name"] == "acme"]
        assert acme == {
            "name": "acme", "version": "1.2", "distribution": "ckpt-rules-acme", "origin": "ckpt_rules_acme",
            "rules": ["acme/bad"], "facts": [], "layouts": [], "reporters": ["terse"], "rulesets": {}, "crash": None,
        }  # fmt: skip

    def test_what_failed_to_load(self, run, install):
        install(broken=ImportError("no module named acme"))
        ended = run("plugins")
        assert ended.code == 2
        assert (
            "broken (ckpt-rules-broken 1.2), ckpt_rules_broken, could not be loaded: ImportError: no module"
            in ended.out
        )
        assert "Traceback" not in ended.out
        assert "Traceback" in run("plugins", "--verbose").out
        crash = next(p["crash"] for p in run("plugins", "-f", "json").json if p["name"] == "broken")
        assert crash["type"] == "ImportError"


class TestSchema:
    @pytest.mark.parametrize(
        ("subject", "field"),
        [("report", "outcomes"), ("reports", "reports"), ("inspection", "resume"), ("ruleset", "extends")],
    )
    def test_each(self, run, subject, field):
        jsonschema = pytest.importorskip("jsonschema")
        schema = run("schema", subject).json
        assert field in schema["properties"]
        jsonschema.Draft202012Validator.check_schema(schema)

    def test_what_verify_prints_fits(self, run, make_checkpoint):
        jsonschema = pytest.importorskip("jsonschema")
        path = make_checkpoint().path
        jsonschema.validate(run("verify", path, "-f", "json").json, run("schema", "report").json)
        jsonschema.validate(run("verify", path, path, "-f", "json").json, run("schema", "reports").json)
        jsonschema.validate(run("inspect", path, "-f", "json").json, run("schema", "inspection").json)


def test_the_version(run):
    from ckpt_rules import __version__

    assert run("--version").out == f"ckpt-rules {__version__}\n"


def test_no_command_at_all_shows_the_help(run):
    ended = run()
    assert "verify" in ended.out + ended.err
    assert "Exit codes: 0 passed, 1 failed, 2 unknown" in ended.out + ended.err


def test_a_misspelt_command_proposes_the_nearest(run):
    assert "Did you mean 'verify'?" in run("verfy").err


def test_help_is_plain_text(run):
    assert all(ord(c) < 128 for c in run("verify", "--help").out)
    assert json.dumps(run("verify", "--help").out)

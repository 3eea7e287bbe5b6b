"""What `verify` prints and writes."""

from __future__ import annotations

import json
import os
import re

import pytest

from ckpt_rules import Report, Reports


class TestText:
    def test_one_path(self, run, make_checkpoint):
        ck = make_checkpoint(epoch=2, step=3, total_batches=10)
        ended = run("verify", ck.path)
        lines = ended.out.splitlines()
        assert (ended.code, ended.err) == (0, "")
        assert lines[0] == f"checkpoint     {ck.path}"
        assert any(line.startswith("✓ optimizer ") for line in lines)
        assert " passed, 0 warnings, 0 errors, " in ended.out
        assert "PASSED  safe to resume; epoch 2 continues: batches 0 to 2 are skipped, 3 to 9" in lines

    def test_several_paths_end_with_a_summary(self, run, make_checkpoint, tmp_path):
        ck = make_checkpoint()
        ended = run("verify", ck.path, tmp_path / "absent")
        assert ended.code == 1
        *_, blank, verdict = ended.out.splitlines()
        assert "2 checkpoints" in ended.out.splitlines()
        assert blank == ""
        assert verdict == "FAILED  of 2 checkpoints 1 passed, 1 failed"
        assert ended.out.count("checkpoint    ") == 2

    def test_quiet(self, run, make_checkpoint):
        ck = make_checkpoint()
        assert run("verify", ck.path, "--quiet").out == run("verify", ck.path, ck.path, "-q").out == ""
        ck.empty("model.safetensors")
        ended = run("verify", ck.path, "--quiet")
        assert ended.code == 1
        assert "error    files/empty" in ended.out
        assert "passed  " not in ended.out
        assert ended.out.splitlines()[-1].startswith("FAILED  not safe to resume: ")

    def test_verbose_shows_every_rule_with_its_time(self, run, make_checkpoint):
        ended = run("verify", make_checkpoint().path, "-v", "--select", "files/*", "--select", "scaler/collapsed")
        assert ended.out.count("  passed   files/") == 13
        assert re.search(r"^  skipped  scaler/collapsed  \d+\.\d ms$", ended.out, re.MULTILINE)

    def test_a_crash_is_a_line_and_with_verbose_a_traceback(self, run, install, fake_rule, tmp_path):
        install(acme={"rules": [fake_rule("acme/bad", lambda _: 1 / 0)]})
        short = run("verify", tmp_path, "--select", "acme/bad").out
        assert "ZeroDivisionError: division by zero" in short
        assert "--verbose" in short
        assert "Traceback" not in short
        assert "| Traceback (most recent call last):" in run("verify", tmp_path, "--select", "acme/bad", "-v").out


class TestJson:
    def test_one_path_is_a_report(self, run, make_checkpoint):
        report = Report.model_validate_json(run("verify", make_checkpoint().path, "-f", "json").out)
        assert report.passed
        assert report.ruleset.model_dump() == {"name": "default", "strict": False, "narrowed": False}

    def test_several_paths_are_reports(self, run, make_checkpoint, tmp_path):
        reports = Reports.model_validate_json(run("verify", make_checkpoint().path, tmp_path / "x", "-f", "json").out)
        assert ([r.verdict.value for r in reports.reports], reports.verdict.value) == (["passed", "failed"], "failed")

    def test_names_that_are_no_utf8(self, run, make_checkpoint):
        ck = make_checkpoint()
        with open(os.fsencode(ck.path) + b"/\xff.pt", "wb"):
            pass
        ended = run("verify", ck.path, "-f", "json")
        (place,) = [f["place"]["path"] for o in ended.json["outcomes"] for f in o["findings"]]
        assert (ended.code, place) == (1, r"\udcff.pt")


class TestSelection:
    def test_only_these_run_and_the_report_says_so(self, run, make_checkpoint):
        ended = run("verify", make_checkpoint().path, "-f", "json", "--select", "files/*", "--exclude", "files/empty")
        rules = [o["rule"] for o in ended.json["outcomes"]]
        assert all(rule.startswith("files/") for rule in rules)
        assert "files/empty" not in rules
        assert ended.json["ruleset"]["narrowed"] is True
        assert "safe to resume" not in ended.json["reason"]

    def test_a_misspelt_rule_proposes_the_nearest(self, run, tmp_path):
        ended = run("verify", tmp_path, "--select", "files/emtpy")
        assert (ended.code, ended.out) == (2, "")
        assert "files/empty" in ended.err


class TestReportersOfPlugins:
    def test_one_is_used_by_its_name(self, run, install, tmp_path):
        install(acme={"reporters": lambda: {"terse": lambda report: f"{report.checkpoint}={report.verdict.value}"}})
        ended = run("verify", tmp_path, tmp_path, "--format", "terse", "--layout", "any", "--select", "files/empty")
        assert ended.out == f"{tmp_path}=passed\n" * 2

    @pytest.mark.parametrize(
        ("reporter", "message"),
        [
            (lambda report: 1 / 0, "the reporter 'bad' crashed: ZeroDivisionError: division by zero"),
            (lambda report: None, "the reporter 'bad' returned NoneType; it must return text"),
        ],
    )
    def test_one_that_fails_ends_with_2(self, run, install, tmp_path, reporter, message):
        install(acme={"reporters": lambda: {"bad": reporter}})
        ended = run("verify", tmp_path, "--format", "bad", "--select", "files/empty")
        assert (ended.code, ended.err) == (2, f"error: {message}\n")

    def test_a_misspelt_format_proposes_the_nearest_before_anything_runs(self, run, install, tmp_path):
        install(acme={"reporters": lambda: {"terse": str}})
        ended = run("verify", tmp_path, "--format", "jsn")
        assert ended.err == "error: there is no format 'jsn' (did you mean 'json'?); there are text, json, terse\n"


class TestOutput:
    def test_the_report_is_in_the_file_and_the_answer_on_stderr(self, run, make_checkpoint, tmp_path):
        ck = make_checkpoint(epoch=2, step=0, total_batches=10)
        file = tmp_path / "report.json"
        ended = run("verify", ck.path, "-f", "json", "-o", file)
        assert (ended.code, ended.out) == (0, "")
        assert Report.model_validate_json(file.read_text()).passed
        assert ended.err.splitlines() == [
            f"PASSED  {ck.path}: safe to resume; epoch 2 is complete; training starts epoch 3 at its first batch",
            f"the report is in {file}",
        ]
        assert run("verify", ck.path, "-q", "-o", file).err == ""

    def test_text_in_a_file_has_no_colour(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        run("verify", tmp_path / "absent", "-o", tmp_path / "report.txt")
        text = (tmp_path / "report.txt").read_text()
        assert "✗ files" in text
        assert "\x1b" not in text

    def test_a_usage_error_leaves_the_old_report(self, run, tmp_path):
        (tmp_path / "report.txt").write_text("old")
        assert run("verify", tmp_path, "-r", "no-such", "-o", tmp_path / "report.txt").code == 2
        assert (tmp_path / "report.txt").read_text() == "old"


def test_the_same_answer_twice(run, make_checkpoint):
    path = make_checkpoint().path

    def without_times():
        report = json.loads(run("verify", path, "-f", "json").out)
        return [{**o, "seconds": 0} for o in report["outcomes"]]

    assert without_times() == without_times()

"""The Python interface: what a script and a training loop call."""

from __future__ import annotations

import os
from datetime import date

import pytest

from ckpt_rules import (
    CheckpointInvalid,
    CkptRulesError,
    ExitCode,
    PluginError,
    RulesetError,
    UsageError,
    Verdict,
    inspect,
    quick_verify_checkpoint,
    verify,
)


class TestVerify:
    def test_a_clean_checkpoint_passes_with_every_ruleset(self, make_checkpoint):
        path = make_checkpoint().path
        for ruleset in ("quick", "default", "ci"):
            report = verify(path, ruleset=ruleset)
            assert (report.findings, report.verdict, report.exit_code) == ([], Verdict.PASSED, ExitCode.PASSED)
            assert report.ruleset.name == ruleset
            assert report.resume

    def test_a_path_may_be_text_or_path_like(self, make_checkpoint):
        ck = make_checkpoint()
        assert verify(os.fspath(ck.path)).passed
        assert verify(ck / ".").passed

    def test_a_missing_path_is_a_finding_not_an_exception(self, tmp_path):
        report = verify(tmp_path / "absent")
        assert [f.rule for f in report.findings] == ["files/missing-checkpoint"]
        assert (report.verdict, report.layout.name) == (Verdict.FAILED, "none")
        assert report.reason == "there is nothing to resume from: 1 error"

    def test_strict_outranks_the_ruleset(self, make_checkpoint):
        ck = make_checkpoint()
        ck.replace("model.safetensors.tmp", b"half of it")
        path = ck.path
        assert [f.severity.value for f in verify(path).findings] == ["warning"]
        assert verify(path).passed
        assert verify(path, strict=True).verdict is Verdict.FAILED
        assert verify(path, ruleset="ci").verdict is Verdict.FAILED
        assert verify(path, ruleset="ci", strict=False).passed

    def test_select_and_exclude(self, make_checkpoint):
        report = verify(make_checkpoint().path, select=["files/*", "rng/missing"], exclude=["files/empty"])
        rules = {o.rule for o in report.outcomes}
        assert "rng/missing" in rules
        assert "files/empty" not in rules
        assert report.ruleset.narrowed
        checked = [o for o in report.outcomes if o.status != "skipped"]
        assert report.reason == f"nothing wrong in what the {len(checked)} selected rules checked"

    def test_a_plugin_can_be_left_out(self, make_checkpoint, tmp_path):
        team = tmp_path / "team.yaml"
        team.write_text("select: ['files/*']\n")
        report = verify(make_checkpoint().path, ruleset=team, no_plugins=["torch"])
        assert report.layout.name == "files"

    def test_the_day_decides_about_ignores(self, make_checkpoint, tmp_path):
        team = tmp_path / "team.yaml"
        team.write_text(
            "extends: [default]\nignore:\n"
            "  - {rule: scheduler/missing, reason: we use a constant rate, expires: 2027-06-30}\n"
        )
        path = make_checkpoint(scheduler=None).path
        before, after = (verify(path, ruleset=team, today=date(2027, *day)) for day in ((6, 30), (7, 1)))
        assert (before.counts.ignored, before.notices) == (1, ())
        assert (after.counts.ignored, [n.severity.value for n in after.notices]) == (0, ["warning"])

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"ruleset": "no-such"}, UsageError),
            ({"select": ["no-such/*"]}, UsageError),
            ({"no_plugins": ["no-such"]}, PluginError),
        ],
    )
    def test_names_that_do_not_exist(self, tmp_path, arguments, error):
        with pytest.raises(error, match="no-such"):
            verify(tmp_path, **arguments)

    def test_an_empty_path_is_not_taken_for_the_working_directory(self):
        with pytest.raises(UsageError, match=r"the path is empty; is a variable not set\?"):
            verify("")

    def test_a_mistake_in_a_ruleset(self, tmp_path):
        team = tmp_path / "team.yaml"
        team.write_text("rules: {files/empty: fatal}\n")
        with pytest.raises(RulesetError) as caught:
            verify(tmp_path, ruleset=team)
        problem = caught.value.problems[0]
        assert (problem.file, problem.line, problem.column) == (str(team), 1, 22)
        assert "unknown severity 'fatal'" in problem.message


class TestQuickVerifyCheckpoint:
    def test_a_pass_returns_the_report(self, make_checkpoint):
        report = quick_verify_checkpoint(make_checkpoint().path)
        assert (report.passed, report.ruleset.name) == (True, "quick")

    def test_anything_else_raises_with_the_report(self, make_checkpoint):
        ck = make_checkpoint().truncate("model.safetensors", keep=0.5)
        with pytest.raises(CheckpointInvalid) as caught:
            quick_verify_checkpoint(ck.path)
        error = caught.value
        assert isinstance(error, CkptRulesError)
        assert error.report.verdict is Verdict.FAILED
        assert str(error).startswith(f"{ck.path} failed: not safe to resume: 1 error: weights/broken-safetensors: ")
        assert "(model.safetensors" in str(error)

    def test_its_message_carries_nothing_that_a_terminal_would_obey(self, make_checkpoint):
        ck = make_checkpoint()
        ck.replace("\x1b[31m.pt", b"")
        with pytest.raises(CheckpointInvalid) as caught:
            quick_verify_checkpoint(ck.path)
        assert r"(\x1b[31m.pt)" in str(caught.value)
        assert "\x1b" not in str(caught.value)

    def test_an_unknown_answer_raises_as_well(self, make_checkpoint, tmp_path):
        (tmp_path / "bad.py").write_text("1 / 0\n")
        team = tmp_path / "team.yaml"
        team.write_text("extends: [quick]\nplugins: [./bad.py]\n")
        with pytest.raises(CkptRulesError):
            quick_verify_checkpoint(make_checkpoint().path, ruleset=team)


class TestInspect:
    def test_it_agrees_with_verify_about_the_resume(self, make_checkpoint):
        path = make_checkpoint(epoch=2, step=3, total_batches=10).path
        assert inspect(path).resume.sentence == verify(path).resume

    def test_a_path_that_is_no_directory(self, tmp_path):
        with pytest.raises(UsageError, match="does not exist"):
            inspect(tmp_path / "absent")


def test_one_glob_needs_no_list(make_checkpoint):
    report = verify(make_checkpoint(), select="files/*", exclude="files/empty")
    assert {o.rule.partition("/")[0] for o in report.outcomes} == {"files"}
    assert "files/empty" not in {o.rule for o in report.outcomes}

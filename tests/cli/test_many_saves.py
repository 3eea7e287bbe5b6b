"""Memory does not grow with the number of saves: of each report the answer is kept, or the gravest finding with it."""

from __future__ import annotations

import shutil

from ckpt_rules import verify
from ckpt_rules.cli import verify as command
from ckpt_rules.report import Answer, worst_verdict
from ckpt_rules.testing import build_plain_torch


def test_a_brief_report_keeps_the_verdict_and_the_gravest_finding(tmp_path):
    checkpoint = build_plain_torch(tmp_path / "ck", with_torch=False).empty("training_state.pth")
    report = verify(checkpoint)
    brief = report.brief()
    assert len(report.outcomes) > len(brief.outcomes) == 1
    assert brief.findings == report.findings[:1]
    assert (brief.verdict, brief.reason, brief.headline()) == (report.verdict, report.reason, report.headline())


def test_a_report_without_findings_keeps_no_outcome(tmp_path):
    report = verify(build_plain_torch(tmp_path / "ck", with_torch=False), select="files/*")
    assert not report.findings
    assert report.brief().outcomes == ()


def test_verify_keeps_the_answers_of_a_run(tmp_path, run, monkeypatch):
    saved = build_plain_torch(tmp_path / "saved", with_torch=False).path
    for number in range(3):
        shutil.copytree(saved, tmp_path / "run" / f"checkpoint-{number}")
    kept = []
    monkeypatch.setattr(command, "worst_verdict", lambda reports: kept.extend(reports) or worst_verdict(reports))
    assert run("verify", "-q", tmp_path / "run").code == 0
    assert [type(each) for each in kept] == [Answer] * 3
    paths = [f"{tmp_path}/run/checkpoint-{number}" for number in range(3)]
    assert [(a.checkpoint, a.layout, a.verdict.value) for a in kept] == [(p, "plain-torch", "passed") for p in paths]

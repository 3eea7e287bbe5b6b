"""The JSON report."""

from __future__ import annotations

import json
import weakref

import pytest

from ckpt_rules import Report, Reports, Verdict
from ckpt_rules.reporters.json import dump, render


def text_of(reports, newest=None):
    return "".join(render(reports, lambda: newest or {}))


def test_golden(nothing_there, golden):
    golden("missing.json", text_of([nothing_there]))


def test_one_report_is_itself_and_several_are_reports(passing, failing):
    assert Report.model_validate_json(text_of([passing])) == passing
    several = Reports.model_validate_json(text_of([passing, failing]))
    assert (len(several.reports), several.verdict) == (2, "unknown")


def test_it_holds_every_finding(failing):
    parsed = json.loads(text_of([failing]))
    assert sum(len(o["findings"]) for o in parsed["outcomes"]) == 1398


def test_any_stream_can_carry_it(failing):
    text = text_of([failing])
    assert text.isascii()
    assert json.loads(text)["checkpoint"] == r"runs/step-\udcff500"
    assert json.loads(text)["outcomes"][-1]["findings"][0]["message"].endswith("größe 3")


def test_it_fits_its_schema(passing, failing):
    import jsonschema

    for report in (passing, failing):
        jsonschema.validate(json.loads(text_of([report])), Report.model_json_schema(mode="serialization"))


@pytest.mark.parametrize("newest", [{}, {"runs/a": "runs/a/step-500", "runs/b": None}])
@pytest.mark.parametrize("amount", [0, 1, 2, 5])
def test_several_are_the_text_of_their_model(passing, failing, amount, newest):
    reports = [passing, failing, passing, passing, failing][:amount]
    verdict = [Verdict.UNKNOWN, Verdict.PASSED, *[Verdict.UNKNOWN] * 4][amount]
    if amount != 1 or newest:
        whole = dump(Reports(reports=tuple(reports), newest=newest, verdict=verdict))
        assert json.loads(text_of(reports, newest)) == json.loads(whole)
        assert not amount or text_of(reports, newest) == whole


def test_each_report_is_let_go_once_it_is_text(passing):
    made = []

    def reports():
        for _ in range(20):
            report = passing.model_copy()
            made.append(weakref.ref(report))
            yield report
            del report

    alive = [sum(each() is not None for each in made) for _ in render(reports())]
    assert (len(made), max(alive)) == (20, 2)

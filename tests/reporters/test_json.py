"""The JSON report."""

from __future__ import annotations

import json

from ckpt_rules import Report, Reports
from ckpt_rules.reporters.json import render


def test_golden(nothing_there, golden):
    golden("missing.json", render([nothing_there]))


def test_one_report_is_itself_and_several_are_reports(passing, failing):
    assert Report.model_validate_json(render([passing])) == passing
    several = Reports.model_validate_json(render([passing, failing]))
    assert (len(several.reports), several.verdict) == (2, "unknown")


def test_it_holds_every_finding(failing):
    parsed = json.loads(render([failing]))
    assert sum(len(o["findings"]) for o in parsed["outcomes"]) == 1398


def test_any_stream_can_carry_it(failing):
    text = render([failing])
    assert text.isascii()
    assert json.loads(text)["checkpoint"] == r"runs/step-\udcff500"
    assert json.loads(text)["outcomes"][-1]["findings"][0]["message"].endswith("größe 3")


def test_it_fits_its_schema(passing, failing):
    import jsonschema

    for report in (passing, failing):
        jsonschema.validate(json.loads(render([report])), Report.model_json_schema(mode="serialization"))

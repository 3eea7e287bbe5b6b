"""`ckpt-rules schema`: JSON Schemas of what is printed and of what is read."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from ckpt_rules.cli.options import NoPlugin, load_plugins
from ckpt_rules.cli.output import emit

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Subject(StrEnum):
    """What has a schema."""

    REPORT = "report"
    REPORTS = "reports"
    INSPECTION = "inspection"
    RULESET = "ruleset"


def schema(
    subject: Annotated[
        Subject,
        typer.Argument(
            help="report: `verify` of one path; reports: of several; inspection: `inspect`; ruleset: the YAML file.",
            show_default=False,
        ),
    ],
    *,
    no_plugin: NoPlugin = None,
) -> None:
    """Print a JSON Schema: of reports, inspections, rulesets."""
    emit([json.dumps({"$schema": DIALECT} | _schema(subject, no_plugin), indent=2) + "\n"])


def _schema(subject: Subject, no_plugin: list[str] | None) -> dict[str, Any]:
    if subject is Subject.RULESET:
        from ckpt_rules.ruleset import ruleset_schema

        return ruleset_schema(load_plugins(no_plugin))
    if subject is Subject.INSPECTION:
        from ckpt_rules.inspection.model import Inspection

        return Inspection.model_json_schema(mode="serialization")
    from ckpt_rules.report import Report, Reports

    model = Report if subject is Subject.REPORT else Reports
    return model.model_json_schema(mode="serialization")

"""The report as JSON: one `Report` for one checkpoint, `Reports` for several. Pure ASCII, so that any stream can carry it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_rules.report import Report, Reports, worst_verdict

if TYPE_CHECKING:
    from pydantic import BaseModel


def render(reports: Sequence[Report], newest: Mapping[str, str | None] | None = None) -> str:
    """What `--format json` prints: the report itself where one checkpoint was named, else all and the worst verdict.

    newest: of each run directory that was named, the newest checkpoint that passed
    """
    if len(reports) == 1 and not newest:
        return dump(reports[0])
    return dump(Reports(verdict=worst_verdict(tuple(reports)), reports=tuple(reports), newest=dict(newest or {})))


def dump(model: BaseModel) -> str:
    """Any model as indented ASCII JSON with a newline at its end."""
    text = model.model_dump_json(indent=2)
    return (text if text.isascii() else json.dumps(json.loads(text), indent=2)) + "\n"

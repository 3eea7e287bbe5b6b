"""The report as JSON: one `Report` for one checkpoint, `Reports` for several. Pure ASCII, so that any stream can carry it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt_rules.report import Report, Reports, worst_verdict

if TYPE_CHECKING:
    from pydantic import BaseModel


def render(reports: Sequence[Report]) -> str:
    """What `--format json` prints: the report itself where there is one, else all of them and the worst verdict."""
    if len(reports) == 1:
        return dump(reports[0])
    return dump(Reports(verdict=worst_verdict(tuple(reports)), reports=tuple(reports)))


def dump(model: BaseModel) -> str:
    """Any model as indented ASCII JSON with a newline at its end."""
    text = model.model_dump_json(indent=2)
    return (text if text.isascii() else json.dumps(json.loads(text), indent=2)) + "\n"

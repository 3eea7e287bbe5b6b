"""The report as JSON: one `Report` for one checkpoint, `Reports` for several. Pure ASCII, so that any stream can carry it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from textwrap import indent
from typing import TYPE_CHECKING

from ckpt_rules.report import Report, Reports, Verdict

if TYPE_CHECKING:
    from pydantic import BaseModel

_DEEPER, _NO_REPORTS = " " * 4, "[]"


def render(reports: Iterable[Report], newest: Callable[[], Mapping[str, str | None]] = dict) -> Iterator[str]:
    """What `--format json` prints: the report itself where one checkpoint was named, else all and the worst verdict.

    Each report is let go once it is text, so that a run of thousands takes no more memory than one.

    newest: of each run directory that was named, the newest checkpoint that passed; asked when all reports were given
    """
    source = iter(reports)
    begin = list(islice(source, 2))
    if len(begin) == 1 and not newest():
        yield dump(begin[0])
        return
    worst, gap = Verdict.PASSED if begin else Verdict.UNKNOWN, "\n"
    yield dump(Reports(reports=(), verdict=worst)).partition(_NO_REPORTS)[0] + "["
    for report in chain(_emptied(begin), source):
        worst = max(worst, report.verdict, key=lambda verdict: verdict.exit_code)
        yield gap + indent(dump(report).rstrip("\n"), _DEEPER)
        gap = ",\n"
    end = dump(Reports(reports=(), newest=dict(newest()), verdict=worst)).partition(_NO_REPORTS)[2]
    yield f"\n  ]{end}"


def _emptied(reports: list[Report]) -> Iterator[Report]:
    while reports:
        yield reports.pop(0)


def dump(model: BaseModel) -> str:
    """Any model as indented ASCII JSON with a newline at its end."""
    text = model.model_dump_json(indent=2)
    return (text if text.isascii() else json.dumps(json.loads(text), indent=2)) + "\n"

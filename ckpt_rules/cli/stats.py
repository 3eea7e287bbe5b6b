"""`ckpt-rules stats`: the values of every tensor."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ckpt_rules.cli.options import AsLayout, Jobs, NoPlugin, WithRuleset, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.cli.progress import shown_progress
from ckpt_rules.report import ExitCode


class StatsForm(StrEnum):
    """A table for people, JSON or CSV for programs."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


def stats(  # noqa: PLR0913 - one argument for each flag
    path: Annotated[str, typer.Argument(metavar="PATH", help="A checkpoint directory or file.", show_default=False)],
    *,
    tensor: Annotated[
        str, typer.Option(metavar="GLOB", help="Only tensors whose name matches; others are not read.")
    ] = "*",
    sort: Annotated[
        str,
        typer.Option(
            metavar="KEY", help="file, name, size, nonfinite, min, max, mean, peak, norm or zeros; the largest first."
        ),
    ] = "file",
    top: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N.", show_default=False)] = None,
    form: Annotated[
        StatsForm, typer.Option("--format", "-f", help="A table, or JSON or CSV for programs.")
    ] = StatsForm.TEXT,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here, whole or not at all.")
    ] = None,
    jobs: Jobs = None,
    ruleset: WithRuleset = None,
    layout: AsLayout = None,
    no_plugin: NoPlugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> int:
    """Print the values of every tensor: range, mean, norm, zeros, and what is not finite.

    Ends with 0 where every tensor was read, whatever its values, and with 2 where one could not be or where a plugin failed.
    """
    from ckpt_rules.api import stats as stats_of
    from ckpt_rules.tensor_stats.model import check_sort_key

    check_sort_key(sort)
    with stdout_kept_clean(), shown_progress(quiet=quiet) as progress:
        found = stats_of(
            path,
            tensor=tensor,
            jobs=jobs,
            progress=progress,
            ruleset=ruleset,
            no_plugins=no_plugin or (),
            layout=layout,
        )
    failed = any(n.fatal for n in found.notices) or found.unreadable
    found = found.sorted(sort)
    shown = found if top is None else found.model_copy(update={"tensors": found.tensors[:top]})
    if form is StatsForm.JSON:
        from ckpt_rules.reporters.json import dump

        emit([dump(shown)], output)
    else:
        from ckpt_rules.reporters.stats import as_csv, render

        emit(as_csv(shown) if form is StatsForm.CSV else [render(shown)], output)
    return ExitCode.UNKNOWN if failed else ExitCode.PASSED

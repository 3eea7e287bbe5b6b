"""`ckpt-rules inspect`: what a checkpoint is, and where training will start."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ckpt_rules.cli.options import AnyForm, AsLayout, Form, NoPlugin, WithRuleset, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.report import ExitCode
from ckpt_rules.reporters.style import Style


def inspect(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A checkpoint directory.", show_default=False)],
    *,
    form: AnyForm = Form.TEXT,
    ruleset: WithRuleset = None,
    layout: AsLayout = None,
    no_plugin: NoPlugin = None,
) -> int:
    """Print what a checkpoint is and where training will start.

    Layout, progress, optimizer, scheduler, scaler, weights; what is not available says why.
    Ends with 0 where the directory could be listed, whatever lies in it, and with 2 where not or where a plugin failed.
    """
    from ckpt_rules.api import inspect as inspect_path

    with stdout_kept_clean():
        inspection = inspect_path(path, ruleset=ruleset, no_plugins=no_plugin or (), layout=layout)
    if form is Form.JSON:
        from ckpt_rules.reporters.json import dump

        emit([dump(inspection)])
    else:
        from ckpt_rules.reporters.inspection import render

        emit([render(inspection, Style.of(sys.stdout))])
    return ExitCode.UNKNOWN if any(n.fatal for n in inspection.notices) else ExitCode.PASSED

"""`ckpt-rules diff`: what differs between two checkpoints."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ckpt_rules.cli.options import AnyForm, AsLayout, Form, Jobs, NoPlugin, WithRuleset, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.cli.progress import shown_progress
from ckpt_rules.reporters.style import Style


def diff(  # noqa: PLR0913 - one argument for each flag
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint directory or file.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, such as a later one.", show_default=False)],
    *,
    tensor: Annotated[
        str, typer.Option(metavar="GLOB", help="Only tensors whose name matches, and nothing but tensors.")
    ] = "*",
    no_values: Annotated[
        bool,
        typer.Option("--no-values", help="Read no bytes: compare sizes, names, shapes, dtypes and training state."),
    ] = False,
    form: AnyForm = Form.TEXT,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here, whole or not at all.")
    ] = None,
    jobs: Jobs = None,
    ruleset: WithRuleset = None,
    layout: AsLayout = None,
    no_plugin: NoPlugin = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Everything that differs, however much it is.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing: the exit code is the answer.")] = False,
) -> int:
    """Print what differs between two checkpoints: files, tensors and by how much, optimizer, scheduler, progress.

    Ends with 0 where they are the same, with 1 where they differ, with 2 where that could not be told.
    """
    from ckpt_rules.api import diff as diff_of

    with stdout_kept_clean(), shown_progress(quiet=quiet) as progress:
        found = diff_of(
            a,
            b,
            tensor=tensor,
            values=not no_values,
            jobs=jobs,
            progress=progress,
            ruleset=ruleset,
            no_plugins=no_plugin or (),
            layout=layout,
        )
    if form is Form.JSON:
        from ckpt_rules.reporters.json import dump

        emit([dump(found)], output)
    elif not quiet:
        from ckpt_rules.reporters.comparison import render

        emit([render(found, Style.of(sys.stdout) if output is None else Style(), verbose=verbose)], output)
    return found.exit_code

"""`ckpt-rules latest`: the newest checkpoint of a run that can be resumed from, for a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from ckpt_rules.cli.options import NoPlugin, RulesetName, Strict, stdout_kept_clean
from ckpt_rules.cli.output import emit, say
from ckpt_rules.finding import Severity
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import ExitCode, Report, Verdict, worst_verdict
from ckpt_rules.traits import ANY

NO_SAVE = 3
"""The exit code where there is no save at all, as before the first one is written."""

AllowEmpty = Annotated[
    bool,
    typer.Option(
        "--allow-empty",
        help="End with 0 and print nothing where there is no save at all, for the first start of a job.",
    ),
]


def latest(
    path: Annotated[str, typer.Argument(metavar="RUN", help="A directory of checkpoints.", show_default=False)],
    *,
    ruleset: RulesetName = "default",
    strict: Strict = None,
    no_plugin: NoPlugin = None,
    allow_empty: AllowEmpty = False,
) -> int:
    """Print the path of the newest checkpoint that passes, and nothing else.

    Verifies the newest first and stops at the first that passes; why others were passed over is said on stderr. Where it prints
    nothing it ends with 1 if there are saves and none passes; with 2 if that is unknown, as where one could not be judged or the path
    does not exist; with 3 if there is no save at all.

    In a script, keep the exit code: `path=$(ckpt-rules latest runs/a) || exit`, then `torchrun train.py --resume "$path"`
    """
    from ckpt_rules.api import newest_checkpoint

    passed_over: list[Report] = []
    with stdout_kept_clean():
        found = newest_checkpoint(
            path,
            ruleset=ruleset,
            strict=strict,
            no_plugins=no_plugin or (),
            passed_over=lambda report: passed_over.append(report.brief()),
        )
    for report in passed_over:
        say(_why(report))
    for advice in dict.fromkeys(n.message for r in passed_over for n in r.notices if n.severity is Severity.INFO):
        say(f"         {advice}")
    if found is not None:
        emit([f"{found}\n"])
        return ExitCode.PASSED
    if not passed_over:
        say(f"there is no checkpoint in {printable(path)}")
        return ExitCode.PASSED if allow_empty else NO_SAVE
    worst = worst_verdict(passed_over)
    return ExitCode.FAILED if worst is Verdict.FAILED else ExitCode.UNKNOWN


def _why(report: Report) -> str:
    """Why a checkpoint was passed over: the verdict with the gravest finding, or that nobody knows what it is."""
    path = printable(report.checkpoint)
    if report.layout.name == ANY and report.passed:
        return f"SKIPPED  {path}: {sentence(report.reason)}"
    if report.passed:
        return f"SKIPPED  {path}: no layout recognises it, as one does an earlier save: it may be under way"
    finding = next(iter(report.findings), None)
    worst = f"; {printable(finding.place.path)}: {sentence(finding.message)}" if finding else ""
    return f"{report.verdict.value.upper()}  {path}: {sentence(report.reason)}{worst}"

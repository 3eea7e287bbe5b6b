"""`ckpt-rules latest`: the newest checkpoint of a run that can be resumed from, for a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from ckpt_rules.cli.options import NoPlugin, RulesetName, Strict, stdout_kept_clean
from ckpt_rules.cli.output import emit, say
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import ExitCode, Report, Verdict, worst_verdict


def latest(
    path: Annotated[str, typer.Argument(metavar="RUN", help="A directory of checkpoints.", show_default=False)],
    *,
    ruleset: RulesetName = "default",
    strict: Strict = None,
    no_plugin: NoPlugin = None,
) -> int:
    """Print the path of the newest checkpoint that passes, and nothing else.

    Verifies the newest first and stops at the first that passes; why others were passed over is said on stderr. Ends with 1
    where none passes, and then prints nothing; with 2 where that is because one could not be judged.

    `train.py --resume "$(ckpt-rules latest runs/a)"`
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
    if found is not None:
        emit([f"{found}\n"])
        return ExitCode.PASSED
    if not passed_over:
        say(f"there is no checkpoint in {printable(path)}")
        return ExitCode.FAILED
    worst = worst_verdict(tuple(passed_over))
    return ExitCode.UNKNOWN if worst is Verdict.UNKNOWN else ExitCode.FAILED


def _why(report: Report) -> str:
    """Why a checkpoint was passed over: the verdict with the gravest finding, or that nobody knows what it is."""
    path = printable(report.checkpoint)
    if report.passed:
        return f"SKIPPED  {path}: no layout recognises it, as one does an earlier save: it may be under way"
    finding = next(iter(report.findings), None)
    worst = f"; {printable(finding.place.path)}: {sentence(finding.message)}" if finding else ""
    return f"{report.verdict.value.upper()}  {path}: {sentence(report.reason)}{worst}"

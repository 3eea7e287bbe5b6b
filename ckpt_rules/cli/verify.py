"""`ckpt-rules verify`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ckpt_rules.cli.options import AsLayout, Jobs, NoPlugin, RulesetName, Strict, stdout_kept_clean
from ckpt_rules.cli.output import emit, say
from ckpt_rules.cli.progress import shown_progress
from ckpt_rules.errors import PluginError, UsageError
from ckpt_rules.layout import PlainFiles
from ckpt_rules.plugin import crash_of
from ckpt_rules.printable import printable, sentence
from ckpt_rules.reading import Reading
from ckpt_rules.report import Answer, ExitCode, Report, Verdict, worst_verdict
from ckpt_rules.reporters.style import Style
from ckpt_rules.time_limit import checked

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.hookspecs import Reporter
    from ckpt_rules.ruleset.resolved import ResolvedRuleset

Render = Callable[[Iterable[Report]], Iterator[str]]
FindPrevious: TypeAlias = "Callable[[Checkpoint], Checkpoint]"
Runs = dict[str, tuple[str, ...]]
"""The checkpoints of each run, oldest first."""
Newest = Callable[[], dict[str, str | None]]
"""Asked once all reports are there."""


def verify(  # noqa: PLR0913 - one argument for each flag
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH", help="Checkpoint directories, or directories of checkpoints.", show_default=False
        ),
    ],
    *,
    ruleset: RulesetName = "default",
    strict: Strict = None,
    form: Annotated[
        str, typer.Option("--format", "-f", metavar="FORMAT", help="text, json, or one that a plugin brings.")
    ] = "text",
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the report here, whole or not at all.")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Run only these of all installed rules: globs of ids, or tag:NAME."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave out these rules: globs of ids, or tag:NAME.")
    ] = None,
    layout: AsLayout = None,
    no_plugin: NoPlugin = None,
    rule_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop each rule that takes longer, and end with 2.", show_default=False),
    ] = None,
    previous: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="An earlier save of the same run; unless given, the complete one before it, where a rule compares.",
            show_default=False,
        ),
    ] = None,
    jobs: Jobs = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every rule with its reason and time, all findings, tracebacks.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing on a pass, only what is wrong else.")
    ] = False,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="End with 0 where it would be 1. 2 remains 2.")
    ] = False,
) -> int:
    """Say whether training can be resumed, and from where.

    Ends with 0 where every selected rule did its work and found no error, 1 where one did, 2 where the answer is unknown.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet contradict each other; give one of them")
    timeout, reading = checked(rule_timeout), Reading(jobs)
    with stdout_kept_clean():
        resolved = _resolve(ruleset, strict, select, exclude, no_plugin, compare=previous is not None)
        runs = _runs(paths, resolved, timeout) if layout is None else {}
        targets = [c for path in paths for c in (chain(*runs[path].values()) if runs.get(path) else (path,))]
        find = _finder(targets, previous, resolved, timeout, layout)
    style = Style.of(sys.stdout) if output is None else Style()
    answers: list[Answer] = []
    newest = partial(_newest, runs, answers)
    text = partial(_text, newest=newest, style=style, verbose=verbose, quiet=quiet)
    render = _renderer(form, resolved, text, partial(_json, newest=newest))
    verified = partial(
        _verified, ruleset=resolved, timeout=timeout, layout=layout, reading=reading, find=find, quiet=quiet
    )
    emit(render(_run(targets, verified, answers)), output)
    if output is not None and not quiet:
        _say_where(answers, output)
    code = worst_verdict(answers).exit_code
    return ExitCode.PASSED if exit_zero and code is ExitCode.FAILED else code


def _resolve(
    ruleset: str,
    strict: bool | None,
    select: list[str] | None,
    exclude: list[str] | None,
    no_plugin: list[str] | None,
    *,
    compare: bool,
) -> ResolvedRuleset:
    from ckpt_rules.api import load_ruleset

    return load_ruleset(
        ruleset,
        strict=strict,
        select=select or (),
        exclude=exclude or (),
        no_plugins=no_plugin or (),
        compare=compare,
    )


def _finder(
    targets: Sequence[str], previous: str | None, ruleset: ResolvedRuleset, timeout: float | None, layout: str | None
) -> FindPrevious:
    from ckpt_rules.api import finder

    if previous is not None and len(targets) > 1:
        raise UsageError(f"--previous names the save before one checkpoint, and there are {len(targets):,} to verify")
    return finder(ruleset, previous, timeout, layout)


def _runs(paths: Sequence[str], ruleset: ResolvedRuleset, timeout: float | None) -> dict[str, Runs]:
    """The runs that each path is or holds."""
    from ckpt_rules.runs import runs_in

    return {path: runs_in(path, ruleset.plugins, ruleset.limits, timeout) for path in paths}


def _newest(runs: dict[str, Runs], answers: Sequence[Answer]) -> dict[str, str | None]:
    """Of each run, the newest checkpoint that passed; where a layout recognises some, it is one of those."""
    passed = {a.checkpoint for a in answers if a.verdict is Verdict.PASSED}
    known = {a.checkpoint for a in answers if a.layout != PlainFiles.name}
    newest = {}
    for run, members in chain.from_iterable(found.items() for found in runs.values()):
        meant = known.intersection(members) or set(members)
        newest[run] = next((c for c in reversed(members) if c in meant & passed), None)
    return newest


def _verified(  # noqa: PLR0913 - what `run` is told
    path: str,
    *,
    ruleset: ResolvedRuleset,
    timeout: float | None,
    layout: str | None,
    reading: Reading,
    find: FindPrevious,
    quiet: bool,
) -> Report:
    from ckpt_rules.engine import run
    from ckpt_rules.storage import LocalStorage

    with stdout_kept_clean(), shown_progress(quiet=quiet) as progress:
        shown = replace(reading, progress=progress)
        return run(LocalStorage(path, ruleset.limits), ruleset, timeout, layout, shown, find)


def _run(paths: Sequence[str], verified: Callable[[str], Report], answers: list[Answer]) -> Iterator[Report]:
    """Verify each path when its report is asked for, and keep no more of it than its answer."""
    for path in paths:
        report = verified(path)
        answers.append(report.answer())
        yield report


def _renderer(form: str, ruleset: ResolvedRuleset, text: Render, as_json: Render) -> Render:
    """What turns reports into text; chosen before anything is checked, so that a misspelt format costs nothing."""
    if form == "text":
        return text
    if form == "json":
        return as_json
    reporters = ruleset.plugins.reporters
    if form not in reporters:
        known = ["text", "json", *reporters]
        near = get_close_matches(form, known, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"there is no format {form!r}{meant}; there are {', '.join(known)}")
    return partial(_foreign, form, reporters[form])


def _text(reports: Iterable[Report], *, newest: Newest, style: Style, verbose: bool, quiet: bool) -> Iterator[str]:
    from ckpt_rules.reporters.text import render, summary

    seen: list[Answer] = []
    gap = ""
    for report in reports:
        seen.append(report.answer())
        if text := render(report, style, verbose=verbose, quiet=quiet):
            yield gap + text
            gap = "\n\n"
    runs = newest()
    if (len(seen) > 1 or runs) and gap:
        yield gap + summary(seen, style, runs)


def _json(reports: Iterable[Report], *, newest: Newest) -> Iterator[str]:
    from ckpt_rules.reporters.json import render

    return render(reports, newest)


def _foreign(name: str, reporter: Reporter, reports: Iterable[Report]) -> Iterator[str]:
    """The text of a plugin's reporter, one report after the other."""
    for report in reports:
        try:
            with stdout_kept_clean():
                text: object = reporter(report)
        except BaseException as error:
            crash = crash_of(error)
            raise PluginError(f"the reporter {name!r} crashed: {crash.type}: {crash.message}") from error
        if not isinstance(text, str):
            raise PluginError(f"the reporter {name!r} returned {type(text).__name__}; it must return text")
        yield text if text.endswith("\n") else f"{text}\n"


def _say_where(answers: Sequence[Answer], output: str) -> None:
    """The answer on stderr, for whoever watches a job that writes its report to a file."""
    for answer in answers:
        say(f"{answer.verdict.value.upper()}  {printable(answer.checkpoint)}: {sentence(answer.reason)}")
    say(f"the report is in {printable(output)}")

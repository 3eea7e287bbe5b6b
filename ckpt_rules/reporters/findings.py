"""What one rule found, crashed with or was skipped for, as indented lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ckpt_rules.finding import Finding, Place, Severity
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import Crash, Outcome
from ckpt_rules.reporters.style import Style

SHOWN = 5
"""Findings of one rule that are shown; the rest are counted."""

INDENT = " " * 11


def findings(outcome: Outcome, style: Style, *, every: bool = False, note: str = "") -> Iterator[str]:
    """The findings of a rule that count, most severe first; of equal severity, the first five unless `every`.

    note: what is to stand behind the rule's id
    """
    live = [f for f in outcome.findings if f.ignored is None]
    for severity in Severity:
        found = [f for f in live if f.severity is severity]
        if found:
            yield title(severity.value, outcome.rule, style, note)
            yield from _several(found if every else found[:SHOWN], style)
            if not every and len(found) > SHOWN:
                yield from style.wrapped(f"and {len(found) - SHOWN:,} more; --verbose shows them all", INDENT)
    if outcome.reason and live and outcome.crash is None:
        yield from style.wrapped(f"not looked at to its end: {sentence(outcome.reason)}", INDENT)


def title(kind: str, rule: str, style: Style, note: str = "") -> str:
    """`  error    files/empty  0.2 ms`."""
    return f"  {style.severity(kind)}  {style.paint(rule, 'bold')}" + (f"  {style.paint(note, 'dim')}" if note else "")


def _several(found: Sequence[Finding], style: Style) -> Iterator[str]:
    """Places and messages; a help that several in a row share comes once, after them."""
    for hint, group in groupby(found, key=lambda f: f.help):
        for finding in group:
            where = place(finding.place)
            if where:
                yield from (style.paint(line, "cyan") for line in style.wrapped(where, INDENT))
            yield from style.wrapped(sentence(finding.message), INDENT + ("  " if where else ""))
        if hint:
            yield from style.wrapped(f"help: {sentence(hint)}", f"{INDENT}      ", first=INDENT)


def place(where: Place) -> str:
    """`model.safetensors, tensor lm_head.weight, byte 1,024`, or '' for the checkpoint as a whole."""
    parts = [] if where.path == "." else [printable(where.path)]
    if where.tensor is not None:
        parts.append(f"tensor {printable(where.tensor)}")
    if where.key is not None:
        parts.append(f"key {printable(where.key)}")
    if where.offset is not None:
        parts.append(f"byte {where.offset:,}")
    return ", ".join(parts)


def crash(outcome: Outcome, style: Style, *, verbose: bool) -> Iterator[str]:
    """What a rule raised or that it took too long, and whose fault that is; or its whole traceback."""
    if outcome.crash is None:
        return
    yield title("crashed", outcome.rule, style)
    yield from style.wrapped(sentence(outcome.reason) if outcome.reason else crash_words(outcome.crash), INDENT)
    blame = (
        "a slow disk, or a loop without end in a plugin"
        if outcome.reason
        else f"a bug in {_culprit(outcome)}, not a fault of the checkpoint"
    )
    shows = "where it was" if outcome.reason else "the traceback"
    yield from style.wrapped(blame if verbose else f"{blame}; --verbose shows {shows}", INDENT)
    if verbose:
        yield from traceback(outcome.crash)


def crash_words(raised: Crash) -> str:
    """`ZeroDivisionError: division by zero`, the first line only."""
    return sentence(f"{raised.type}: {raised.message.strip().partition(chr(10))[0]}")


def traceback(raised: Crash) -> Iterator[str]:
    """The traceback, line by line, indented."""
    for line in raised.traceback.splitlines():
        yield f"{INDENT}| {printable(line, limit=None)}".rstrip()


def _culprit(outcome: Outcome) -> str:
    layout = outcome.crash.layout if outcome.crash else None
    return f"the layout {printable(layout)}" if layout else f"the plugin {printable(outcome.plugin)}"

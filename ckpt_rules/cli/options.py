"""Options that several commands have, and the choice of plugins behind them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ckpt_rules.cli.output import say
from ckpt_rules.printable import printable, sentence

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

STDOUT, STDERR = 1, 2

NoPlugin = Annotated[
    list[str] | None,
    typer.Option("--no-plugin", metavar="NAME", help="Leave out an installed plugin. May be given several times."),
]


RulesetName = Annotated[
    str,
    typer.Option("--ruleset", "-r", metavar="NAME|FILE", help="quick, default, deep, ci, plugin:name or a YAML file."),
]
Strict = Annotated[
    bool | None,
    typer.Option("--strict/--no-strict", help="Warnings are errors; unless given, the ruleset decides."),
]
WithRuleset = Annotated[
    str | None,
    typer.Option(
        "--ruleset",
        "-r",
        metavar="NAME|FILE",
        help="With the plugin files that this ruleset names.",
        show_default=False,
    ),
]


AsLayout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME",
        help="Read it as this layout, whatever it looks like; any: judge its files alone.",
        show_default=False,
    ),
]


Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Threads that read every byte, where a rule needs that; one per core.", show_default=False
    ),
]


class Form(StrEnum):
    """Text for people or JSON for programs."""

    TEXT = "text"
    JSON = "json"


AnyForm = Annotated[Form, typer.Option("--format", "-f", help="Text for people or JSON for programs.")]


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """While plugins' code runs: what it prints goes to stderr, for what we print on stdout may be JSON.

    So does what a C library or a child process prints, which knows nothing of `sys.stdout`.
    """
    with _descriptor_diverted(), contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _descriptor_diverted() -> Iterator[None]:
    if sys.__stdout__ is None or sys.__stderr__ is None:  # their numbers may by now be those of other files
        yield
        return
    _flush(sys.__stdout__)
    kept = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        yield
    finally:
        _flush(sys.__stdout__)
        os.dup2(kept, STDOUT)
        os.close(kept)


def _flush(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.flush()


def load_plugins(left_out: Iterable[str] | None, ruleset: str | None = None) -> Plugins:
    """The installed plugins, and the files that a ruleset names; one that does not load is named on stderr."""
    from ckpt_rules.api import load_ruleset
    from ckpt_rules.plugins import installed_plugins

    with stdout_kept_clean():
        if ruleset is None:
            plugins = installed_plugins(frozenset(left_out or ()))
        else:
            plugins = load_ruleset(ruleset, no_plugins=left_out or ()).plugins
    for plugin in plugins.broken:
        if plugin.crash:
            words = f"{plugin.crash.type}: {plugin.crash.message}"
            say(f"warning: the plugin {printable(str(plugin))} could not be loaded: {sentence(words)}")
    return plugins

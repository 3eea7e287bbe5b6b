"""Options that several commands have, and the choice of plugins behind them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_rules.printable import printable, sentence

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

NoPlugin = Annotated[
    list[str] | None,
    typer.Option("--no-plugin", metavar="NAME", help="Leave out an installed plugin. May be given several times."),
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


class Form(StrEnum):
    """Text for people or JSON for programs."""

    TEXT = "text"
    JSON = "json"


AnyForm = Annotated[Form, typer.Option("--format", "-f", help="Text for people or JSON for programs.")]


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """While plugins' code runs: what it prints goes to stderr, for what we print on stdout may be JSON."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


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
            typer.echo(f"warning: the plugin {printable(str(plugin))} could not be loaded: {sentence(words)}", err=True)
    return plugins

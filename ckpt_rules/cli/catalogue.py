"""`ckpt-rules rules` and `ckpt-rules rule`: what can be checked, and the page of each rule."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_rules.cli.options import AnyForm, Form, NoPlugin, WithRuleset, load_plugins
from ckpt_rules.cli.output import emit, say
from ckpt_rules.errors import UsageError
from ckpt_rules.printable import printable
from ckpt_rules.reporters.style import Style

if TYPE_CHECKING:
    from ckpt_rules.catalogue import RuleInfo
    from ckpt_rules.plugins import Plugins


class CatalogueForm(StrEnum):
    """How the rules are listed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def rules(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[GLOB]", help="Only these: a glob of ids, or tag:NAME.", show_default=False)
    ] = None,
    *,
    form: Annotated[
        CatalogueForm, typer.Option("--format", "-f", help="A table, JSON, or pages.")
    ] = CatalogueForm.TEXT,
    ruleset: WithRuleset = None,
    no_plugin: NoPlugin = None,
) -> None:
    """List the installed rules, and with `--ruleset` those of its plugin files."""
    from ckpt_rules.catalogue import rule_infos, rule_page

    plugins = load_plugins(no_plugin, ruleset)
    found = rule_infos(plugins, None if pattern is None else _matching(plugins, pattern))
    if form is CatalogueForm.JSON:
        emit([_as_json(found)])
    elif form is CatalogueForm.MARKDOWN:
        emit(["\n".join(rule_page(r, 2) for r in found)])
    else:
        emit([_as_table(found)])


def rule(
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="A rule, such as files/empty.", show_default=False)],
    *,
    form: AnyForm = Form.TEXT,
    ruleset: WithRuleset = None,
    no_plugin: NoPlugin = None,
) -> None:
    """Print the page of a rule.

    What it checks, why it matters, how to repair, and its options.
    """
    from ckpt_rules.catalogue import rule_info, rule_page
    from ckpt_rules.ruleset.installed import Installed

    plugins = load_plugins(no_plugin, ruleset)
    installed = Installed(plugins)
    known = installed.rule(rule_id)
    if known is None:
        raise UsageError(installed.unknown_rule(rule_id))
    if known != rule_id:
        say(f"{printable(rule_id)} is called {known} now")
    info = rule_info(*plugins.rules[known])
    emit([info.model_dump_json(indent=2) + "\n" if form is Form.JSON else _painted(rule_page(info))])


def _matching(plugins: Plugins, pattern: str) -> tuple[str, ...]:
    from ckpt_rules.ruleset.installed import Installed

    installed = Installed(plugins)
    found = installed.find(pattern).ids
    if not found:
        raise UsageError(installed.unknown_pattern(pattern))
    return found


def _as_json(found: list[RuleInfo]) -> str:
    import json

    return json.dumps([r.model_dump(mode="json") for r in found], indent=2) + "\n"


def _as_table(found: list[RuleInfo]) -> str:
    from ckpt_rules.cli.tables import table

    style = Style.of(sys.stdout)
    rows = [(r.id, r.severity.value, r.summary) for r in found]
    count = f"{len(found):,} rule{'' if len(found) == 1 else 's'}; `ckpt-rules rule ID` prints the page of one"
    return f"{table(('rule', 'severity', 'what it finds'), rows, style, wrap=style.terminal)}\n{count}\n"


def _painted(page: str) -> str:
    """A page with its headings in bold where colour is wanted; Markdown is readable as it stands."""
    style = Style.of(sys.stdout)
    return "".join(
        style.paint(line.rstrip("\n"), "bold") + "\n" if line.startswith("#") else line
        for line in page.splitlines(keepends=True)
    )

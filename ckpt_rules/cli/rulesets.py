"""`ckpt-rules rulesets`: which rulesets there are, and what is in force in one."""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckpt_rules.cli.options import AnyForm, Form, NoPlugin, load_plugins, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.errors import CkptRulesError
from ckpt_rules.finding import Severity
from ckpt_rules.limits import DEFAULT_LIMITS
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import ExitCode
from ckpt_rules.reporters.style import Style

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins
    from ckpt_rules.ruleset.resolved import ResolvedRuleset, SelectedRule

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None, help="List the rulesets, or show one.")


@app.callback()
def rulesets(context: typer.Context, *, form: AnyForm = Form.TEXT, no_plugin: NoPlugin = None) -> int:
    """List the rulesets that can be named, the built-in ones and those of plugins."""
    if context.invoked_subcommand is not None:
        return ExitCode.PASSED
    plugins = load_plugins(no_plugin)
    found = _all(plugins)
    emit([json.dumps(found, indent=2) + "\n" if form is Form.JSON else _list(found)])
    return ExitCode.UNKNOWN if any(r["error"] for r in found) else ExitCode.PASSED


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A ruleset.", show_default=False)],
    *,
    form: AnyForm = Form.TEXT,
    no_plugin: NoPlugin = None,
) -> int:
    """Print what is in force: each rule, its severity and options, and which file and line decided."""
    resolved = _resolved(name, load_plugins(no_plugin))
    emit([json.dumps(_view(resolved), indent=2) + "\n" if form is Form.JSON else _page(resolved)])
    return ExitCode.UNKNOWN if any(n.fatal for n in resolved.notices) or resolved.plugins.broken else ExitCode.PASSED


def _resolved(name: str, plugins: Plugins) -> ResolvedRuleset:
    from ckpt_rules.ruleset import resolve

    with stdout_kept_clean():
        return resolve(name, plugins, today=date.today())


def _all(plugins: Plugins) -> list[dict[str, Any]]:
    from ckpt_rules.ruleset import builtin_rulesets

    found = []
    for name, path in {**builtin_rulesets(), **plugins.rulesets}.items():
        entry = {"name": name, "file": str(path), "rules": 0, "strict": False, "description": "", "error": None}
        try:
            resolved = _resolved(name, plugins)
        except CkptRulesError as error:
            entry["error"] = str(error)
        else:
            entry |= {"rules": len(resolved.rules), "strict": resolved.strict, "description": resolved.description}
        found.append(entry)
    return found


def _list(found: list[dict[str, Any]]) -> str:
    from ckpt_rules.cli.tables import table

    style = Style.of(sys.stdout)
    rows = [
        (r["name"], f"{r['rules']:,}", "yes" if r["strict"] else "no", "broken" if r["error"] else r["description"])
        for r in found
    ]
    broken = [f"\n{printable(r['name'])} is broken:\n{r['error']}\n" for r in found if r["error"]]
    return table(("ruleset", "rules", "strict", "description"), rows, style, wrap=style.terminal) + "".join(broken)


def _view(resolved: ResolvedRuleset) -> dict[str, Any]:
    return {
        "name": resolved.name,
        "description": resolved.description,
        "strict": resolved.strict,
        "limits": resolved.limits.model_dump(),
        "rules": [_rule_view(s, resolved) for s in resolved.rules],
        "ignores": [
            {
                "rule": i.rule,
                "path": i.path,
                "tensor": i.tensor,
                "reason": i.reason,
                "expires": i.expires.isoformat() if i.expires else None,
                "decided_by": str(i.origin),
            }
            for i in resolved.ignores
        ],
        "notices": [n.model_dump(mode="json") for n in resolved.notices],
    }


def _rule_view(selected: SelectedRule, resolved: ResolvedRuleset) -> dict[str, Any]:
    return {
        "rule": selected.rule.id,
        "plugin": selected.plugin,
        "severity": _severity(selected, resolved).value,
        "options": selected.rule.model_dump(mode="json"),
        "selected_by": str(selected.selected_by),
        "decided_by": {what: str(origin) for what, origin in selected.decided.items()},
    }


def _severity(selected: SelectedRule, resolved: ResolvedRuleset) -> Severity:
    severity = selected.severity or selected.rule.severity
    return Severity.ERROR if resolved.strict and severity is Severity.WARNING else severity


def _page(resolved: ResolvedRuleset) -> str:
    from ckpt_rules.cli.tables import table

    style = Style.of(sys.stdout)
    strict = ", strict: warnings are errors" if resolved.strict else ""
    about = f"{printable(resolved.name)}: {sentence(resolved.description) or 'no description'}{strict}"
    parts = ["\n".join(style.wrapped(about) if style.terminal else [about]) + "\n"]
    rows = [_row(_rule_view(s, resolved)) for s in resolved.rules]
    parts.append(table(("rule", "severity", "options", "decided by"), rows, style, wrap=style.terminal))
    if resolved.ignores:
        rows = [(i.rule, i.path or i.tensor or "", sentence(i.reason), _short(str(i.origin))) for i in resolved.ignores]
        parts.append(table(("ignored", "where", "because", "decided by"), rows, style, wrap=style.terminal))
    raised = {name: value for name, value in resolved.limits if value != getattr(DEFAULT_LIMITS, name)}
    if raised:
        parts.append("limits: " + ", ".join(f"{name} {value:,}" for name, value in raised.items()) + "\n")
    parts += [f"{n.severity.value}: {sentence(n.message)}\n" for n in resolved.notices]
    return "\n".join(parts)


def _row(view: dict[str, Any]) -> tuple[str, str, str, str]:
    options = ", ".join(f"{name}={json.dumps(value)}" for name, value in view["options"].items())
    decided = [_short(view["selected_by"]), *(f"{what}: {_short(who)}" for what, who in view["decided_by"].items())]
    return view["rule"], view["severity"], options, "; ".join(decided)


def _short(origin: str) -> str:
    """A file and line as short as it is clear: built-in rulesets by their name, others from the working directory."""
    from ckpt_rules.ruleset import builtin_rulesets

    folder, name = os.path.split(origin)
    if folder in {str(path.parent) for path in builtin_rulesets().values()}:
        return name
    near = os.path.relpath(origin) if folder else origin
    return origin if near.startswith(os.pardir) else near

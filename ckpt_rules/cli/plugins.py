"""`ckpt-rules plugins`: who brings what, and what failed to load."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from ckpt_rules.cli.options import AnyForm, Form, NoPlugin, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.plugins import Plugin, installed_plugins
from ckpt_rules.printable import printable, sentence
from ckpt_rules.report import ExitCode
from ckpt_rules.reporters.style import Style


def plugins(
    *,
    form: AnyForm = Form.TEXT,
    no_plugin: NoPlugin = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Everything by name, and tracebacks.")] = False,
) -> int:
    """List the installed plugins and what each brings.

    Ends with 2 where one could not be loaded.
    """
    with stdout_kept_clean():
        found = installed_plugins(frozenset(no_plugin or ()))
    style = Style.of(sys.stdout)
    emit([_as_json(found.plugins) if form is Form.JSON else _as_text(found.plugins, style, verbose=verbose)])
    return ExitCode.UNKNOWN if found.broken else ExitCode.PASSED


def _as_json(found: tuple[Plugin, ...]) -> str:
    return json.dumps([_facts(p) for p in found], indent=2) + "\n"


def _facts(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "version": plugin.version,
        "distribution": plugin.distribution,
        "origin": plugin.origin,
        "rules": sorted(r.id for r in plugin.rules),
        "facts": sorted(f.name for f in plugin.facts),
        "layouts": sorted(x.name for x in plugin.layouts),
        "reporters": sorted(plugin.reporters),
        "rulesets": {f"{plugin.name}:{name}": os.fspath(path) for name, path in sorted(plugin.rulesets.items())},
        "crash": plugin.crash.model_dump(mode="json") if plugin.crash else None,
    }


def _as_text(found: tuple[Plugin, ...], style: Style, *, verbose: bool) -> str:
    from ckpt_rules.cli.tables import table

    rows = [(p.name, p.version, p.distribution, _brings(p, verbose=verbose)) for p in found]
    head = table(("plugin", "version", "distribution", "brings"), rows, style, wrap=style.terminal)
    return head + "".join(_failure(p, verbose=verbose) for p in found if p.crash)


def _brings(plugin: Plugin, *, verbose: bool) -> str:
    if plugin.crash:
        return "broken"
    kinds = {
        "rule": sorted(r.id for r in plugin.rules),
        "fact": sorted(f.name for f in plugin.facts),
        "layout": sorted(x.name for x in plugin.layouts),
        "reporter": sorted(plugin.reporters),
        "ruleset": sorted(plugin.rulesets),
    }
    said = [_several(kind, names, verbose=verbose) for kind, names in kinds.items() if names]
    return "; ".join(said) or "nothing"


def _several(kind: str, names: list[str], *, verbose: bool) -> str:
    count = f"{len(names):,} {kind}{'' if len(names) == 1 else 's'}"
    return f"{count}: {', '.join(names)}" if verbose or kind != "rule" else count


def _failure(plugin: Plugin, *, verbose: bool) -> str:
    if plugin.crash is None:
        return ""
    said = sentence(f"{plugin.crash.type}: {plugin.crash.message}")
    lines = [f"\n{printable(str(plugin))}, {printable(plugin.origin)}, could not be loaded: {said}"]
    if verbose:
        lines += [f"  | {printable(line, limit=None)}" for line in plugin.crash.traceback.splitlines()]
    else:
        lines.append("--verbose shows the traceback")
    return "\n".join(lines) + "\n"

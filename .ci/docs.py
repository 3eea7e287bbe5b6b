"""Writes what the documentation takes from the program: the rules' pages, the catalogue, real output, a schema.

`docs.py` brings every generated part up to date; `docs.py --check` changes nothing, names what is out of date and ends with 1.
In Markdown, a generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PART = re.compile(r"(?<=<!-- generated: )(?P<name>[a-z-]+) -->\n(?P<text>.*?)(?=<!-- end -->)", re.DOTALL)
DURATION = re.compile(r"\b\d+(\.\d+)? ?(ms|s)\b")


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = {path: text for path, text in current().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        name = path.relative_to(REPO)
        print(f"{name} is out of date: run `make docs`" if check else f"writing {name}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


def current() -> dict[Path, str]:
    """Every generated file, and every page with a generated part, as they should be."""
    from facts_page import facts_page

    from ckpt_rules.catalogue import rules_page

    files = {
        REPO / "docs" / "facts.md": facts_page(),
        REPO / "docs" / "rules.md": rules_page(),
        REPO / "rulesets" / "ruleset.schema.json": ruleset_schema(),
        REPO / "ckpt_rules" / "__init__.pyi": public_names(),
    }
    pages = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
    return files | {page: filled(page.read_text("utf-8")) for page in pages if page not in files}


def ruleset_schema() -> str:
    """The JSON Schema of a ruleset file, for the plugins that come with ckpt-rules, whatever else is installed."""
    import json

    from ckpt_rules import ruleset
    from ckpt_rules.cli.schema import DIALECT
    from ckpt_rules.plugins import Plugins, installed_plugins

    installed = installed_plugins()
    ours = Plugins(tuple(p for p in installed.plugins if p.distribution == "ckpt-rules"), installed.manager)
    return json.dumps({"$schema": DIALECT} | ruleset.ruleset_schema(ours), indent=2) + "\n"


def public_names() -> str:
    """The stub of the package, in which type checkers and editors find the names that are imported when first used."""
    import ckpt_rules

    table = vars(ckpt_rules)
    homes = table["_HOME_OF"] | {name: module.rpartition(".")[0] for name, module in table["_MODULES"].items()}

    def place(name: str) -> tuple[str, bool, bool, str]:
        return homes[name], not name.isupper(), not name[0].isupper(), name

    imports = [f"from {homes[name]} import {name} as {name}" for name in sorted(homes, key=place)]
    return "\n".join(["# Written by `make docs` from the table in __init__.py.", "", *imports, ""])


def filled(page: str) -> str:
    """A page with its generated parts brought up to date."""
    parts: dict[str, Callable[[], str]] = {
        "catalogue": catalogue,
        "passes": passes,
        "fails": fails,
        "inspected": inspected,
    }

    def fill(match: re.Match[str]) -> str:
        new = f"\n{parts[match['name']]().strip()}\n\n"
        # How long a run took is not drift.
        text = match["text"] if same_but_for_time(match["text"], new) else new
        return f"{match['name']} -->\n{text}"

    return PART.sub(fill, page)


def same_but_for_time(old: str, new: str) -> bool:
    return DURATION.sub("", old) == DURATION.sub("", new)


def catalogue() -> str:
    """The table of all built-in rules, each linked to its page."""
    from ckpt_rules.catalogue import rules_table

    return rules_table("docs/rules.md")


def passes() -> str:
    return console("ckpt-rules verify runs/step-500")


def fails() -> str:
    return console("ckpt-rules verify runs/step-500", damaged=True)


def inspected() -> str:
    return console("ckpt-rules inspect runs/step-500")


def console(command: str, *, damaged: bool = False) -> str:
    """A command and what it really prints, 80 columns wide, over a small checkpoint that is always the same."""
    from ckpt_rules.testing import build_plain_torch

    with tempfile.TemporaryDirectory() as home:
        checkpoint = build_plain_torch(Path(home) / "runs" / "step-500", epoch=3, step=100, total_batches=200)
        if damaged:
            checkpoint.truncate("model.safetensors", keep=0.6)
            checkpoint.set_key("training_state.pth", "scheduler_state_dict.last_epoch", 400)
        program, *arguments = command.split()
        argv = [str(Path(sys.executable).with_name(program)), *arguments]
        plain = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
        done = subprocess.run(argv, cwd=home, env=plain, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != int(damaged):
        raise SystemExit(f"{command} ended with {done.returncode}; nothing is written:\n{done.stdout}")
    ended = f"$ echo $?\n{done.returncode}"
    return f"```console\n$ {command}\n{done.stdout.strip()}\n{ended}\n```"


if __name__ == "__main__":
    sys.exit(main())

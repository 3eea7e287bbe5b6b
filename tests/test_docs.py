"""The documentation is true: what is generated is current, links lead somewhere, examples do what they say."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from ckpt_rules import ExitCode

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(REPO.glob("docs/*.md"))
FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


def fences(language: str) -> list:
    return [
        pytest.param(match["code"], id=f"{name(page)}-{number}")
        for page in PAGES
        for number, match in enumerate(FENCE.finditer(page.read_text("utf-8")))
        if match["language"] == language
    ]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    text = FENCE.sub("", page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in HEADING.findall(text)}


def test_generated_parts_are_current():
    script = REPO / ".ci" / "docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    dead = []
    for match in LINK.finditer(FENCE.sub("", page.read_text("utf-8"))):
        target, _, anchor = match["target"].partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            dead.append(match["target"])
    assert dead == []


@pytest.mark.parametrize("code", fences("python"))
def test_python_examples_parse_and_import_what_exists(code):
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in {"ckpt_rules", "ckpt_rules.testing"}:
            module = importlib.import_module(node.module)
            assert [a.name for a in node.names if not hasattr(module, a.name)] == []


@pytest.mark.parametrize("code", fences("yaml"))
def test_yaml_examples_parse(code):
    assert yaml.safe_load(code)


@pytest.mark.parametrize("page", ["README.md", "docs/verify.md", "docs/ci.md"])
def test_the_table_of_exit_codes_is_the_truth(page):
    rows = re.findall(r"^\| (\d) \| (\w+):", (REPO / page).read_text("utf-8"), re.MULTILINE)
    assert {int(code): word for code, word in rows} == {c.value: c.name.lower() for c in ExitCode}


def commands() -> list[str]:
    """Every call of the command line that the pages show, without what a shell adds."""
    found = set()
    for page in PAGES:
        for match in FENCE.finditer(page.read_text("utf-8")):
            lines = (
                re.findall(r"(?:^|[\s$:])(ckpt-rules (?!is|needs).*)", match["code"])
                if match["language"] != "python"
                else []
            )
            found |= {re.split(r" #| \|| &&| >", line)[0].strip() for line in lines}
    return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_commands_and_flags_that_are_shown_exist(command):
    words = command.split()[1:]
    flags = {w for w in words if w.startswith("--")}
    subcommand = [w for w in words[:2] if re.fullmatch(r"[a-z]+", w)]
    subcommand = subcommand[:2] if subcommand[:1] == ["rulesets"] else subcommand[:1]
    known = help_of(*subcommand)
    assert sorted(f for f in flags if f not in known) == []


@cache
def help_of(*subcommand: str) -> str:
    argv = [str(Path(sys.executable).with_name("ckpt-rules")), *subcommand, "--help"]
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(argv, capture_output=True, text=True, check=True, env=wide).stdout


def example_rule(tmp_path: Path) -> Path:
    [code] = [c for c in (m["code"] for m in FENCE.finditer((REPO / "README.md").read_text("utf-8"))) if "(Rule)" in c]
    file = tmp_path / "our_rules.py"
    file.write_text(code, encoding="utf-8")
    return file


def test_the_rule_in_the_readme_works_as_a_local_plugin(tmp_path):
    from ckpt_rules import verify
    from ckpt_rules.testing import build_plain_torch

    example_rule(tmp_path)
    team = tmp_path / "team.yaml"
    team.write_text("plugins: [./our_rules.py]\nrules: {ours/too-many-groups: error}\n", encoding="utf-8")
    report = verify(build_plain_torch(tmp_path / "ck").path, ruleset=team)
    assert [(o.rule, o.status.value) for o in report.outcomes] == [("ours/too-many-groups", "passed")]


def test_the_ruleset_in_the_readme_is_valid(tmp_path):
    from ckpt_rules import verify
    from ckpt_rules.testing import build_plain_torch

    [code] = [m["code"] for m in FENCE.finditer((REPO / "README.md").read_text("utf-8")) if m["language"] == "yaml"]
    team = tmp_path / "team.yaml"
    team.write_text(code, encoding="utf-8")
    assert verify(build_plain_torch(tmp_path / "ck").path, ruleset=team).passed


INCIDENTS = (REPO / "docs" / "incidents.md").read_text("utf-8")
CAUGHT = {"yes", "deep", "earlier", "told"}


def incidents() -> list:
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in INCIDENTS.splitlines() if line.startswith("| ")
    ]
    return [
        pytest.param(*row, id=row[0][:60])
        for row in cells
        if len(row) == 5 and row[0] not in ("---", "what the disk shows")
    ]


@pytest.mark.parametrize(("shown", "examples", "caught", "rules", "tests"), incidents())
def test_each_incident_names_rules_and_tests_that_exist(shown, examples, caught, rules, tests):
    word = re.match(r"\w+", caught)[0]
    assert word in CAUGHT | {"run", "no"}
    assert bool(tests) == (word in CAUGHT or bool(rules)), "what is caught is shown by a test"
    assert [r for r in re.findall(r"`([^`]+)`", rules) if r not in rule_ids()] == []
    for test in re.findall(r"`([^`]+)`", tests):
        path, _, function = test.partition("::")
        assert f"def {function}(" in (REPO / "tests" / path).read_text("utf-8"), test


TRAPS = (REPO / "docs" / "layouts.md").read_text("utf-8").partition("\n## Traps")[2].partition("\n## ")[0]


def test_each_trap_names_tests_that_exist():
    named = re.findall(r"`(\S+\.py)::(\w+)`", TRAPS)
    assert len(named) > 20
    for path, function in named:
        assert f"def {function}(" in (REPO / "tests" / path).read_text("utf-8"), function


@cache
def rule_ids() -> frozenset[str]:
    from ckpt_rules.plugins import installed_plugins

    return frozenset(installed_plugins().rules)

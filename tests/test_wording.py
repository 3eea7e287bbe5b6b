"""The glossary: what messages, docstrings and pages say in plain English, and the turns that they do without."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(REPO / "ckpt_rules").rglob("*.py"), *(REPO / "plugins").rglob("*.py")])
PAGES = sorted([REPO / "README.md", REPO / "SECURITY.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")])
GLOSSARY = {
    r"(?<![Tt]here )\b(is|was) no (?!more|longer|other|one|such|use|way|reason|need|end|matter|doubt)[a-z]": "is not a …",
    r"(?<![Tt]here )\bare no (?!more|longer|other|such|two)[a-z]": "are not …",
    r"\banew\b": "again, from scratch",
    r"\b([Gg]oes|[Gg]o|[Gg]oing|went) on\b": "continues",
    r"\bwithout a word\b": "silently",
    r"\b(told|tells?) apart\b": "distinguish",
    r"\bcan't be had\b": "is not available",
    r"\b(makes?|made) no sense\b": "is not valid",
    r"\bmade sense of\b": "can't be interpreted",
    r"\bwaits for ever\b": "blocks indefinitely",
    r"\bis none itself\b": "is not a checkpoint",
    r"\bhas besides\b": "additionally contains",
    r"\bof different moments\b": "saved at different steps",
    r"\bnothing to look at here\b": "does not apply",
}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Each text in a module, an f-string with … for its values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def faults(texts: Iterator[tuple[int, str]] | list[tuple[int, str]]) -> list[str]:
    found = []
    for line, text in texts:
        flat = " ".join(text.split())
        for pattern, better in GLOSSARY.items():
            if match := re.search(pattern, flat):
                found.append(f"line {line}: '{flat[max(0, match.start() - 30) : match.end() + 30]}' ({better})")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_messages_and_docstrings(path):
    assert faults(strings(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages(path):
    assert faults([(0, path.read_text(encoding="utf-8"))]) == []


def test_what_is_found():
    said = "which is no number, and goes on without a word"
    assert len(faults([(1, said)])) == 3
    assert faults([(1, "there is no optimizer, and it is no longer read")]) == []

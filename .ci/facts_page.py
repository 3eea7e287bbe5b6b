"""docs/facts.md: every fact with its fields, from the docstrings of the classes that answer."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator

import ckpt_rules
from ckpt_rules import known_facts
from ckpt_rules.deep import facts as of_bytes
from ckpt_rules.fact import Fact
from ckpt_rules.files import Files

HEAD = """# Facts

What a rule can ask of a checkpoint, with the fields of every answer. This page is written from the docstrings of the classes
(`make docs`). [Writing a plugin](plugins.md) shows how a rule asks, how a layout answers, and how a plugin brings a fact of its
own. Steps are optimizer updates, batches are forward passes, sizes are bytes, epochs are counted from 1 unless a field says
otherwise.
"""
FILES = """## Files

`checkpoint.files` is what lies at the path. Paths are relative to the checkpoint; one that begins with `../` lies beside it. Each
file is read once, whoever asks, and nothing in it is run. A file that can't be read raises `FactUnavailable`, blocked, with its
path. `checkpoint.listing` and `checkpoint.path` stand for `checkpoint.files.listing` and `.path`.
"""
ANSWERED = """## Facts that layouts answer

`checkpoint.weights` is `checkpoint[WEIGHTS]`, and so on: `from ckpt_rules import WEIGHTS`. Where a layout has no answer, asking
raises `FactUnavailable`.
"""
BYTES = """## What lies in the bytes

For rules that set `reads = Reads.BYTES`. Every byte is read once for all of them: a rule says in `wanted` what it wants computed,
and finds it here. Values are read by NumPy, so that these functions are imported when they are first used.
"""
MADE_OF = """## What the answers are made of
"""


def facts_page() -> str:
    """The whole page."""
    known = [fact for fact in known_facts.KNOWN if isinstance(fact, Fact)]
    hints = typing.get_type_hints(known_facts)
    answers = {fact: _answer(fact, hints) for fact in known}
    shown: set[type | None] = set()
    parts = [HEAD, FILES, *_methods(), ANSWERED]
    for fact in known:
        reads, cls = answers[fact]
        parts.append(_fact(fact, reads, None if cls in shown else cls))
        shown.add(cls)
    parts += [BYTES, *_functions(), MADE_OF, *_made_of(shown)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _answer(fact: Fact[object], hints: dict[str, object]) -> tuple[str, type | None]:
    """How the type reads, and the class of one answer."""
    hint = hints.get(fact.name.upper())
    args = typing.get_args(typing.get_args(hint)[0]) if hint is not None else ()
    cls = args[0] if args else fact.of
    return (f"tuple of `{cls.__name__}`" if args else f"`{cls.__name__}`"), cls


def _fact(fact: Fact[object], reads: str, cls: type | None) -> str:
    return f"### `checkpoint.{fact.name}`\n\n{reads}: the {fact.what.removeprefix('the ')}.\n\n{_fields(cls)}"


def _fields(cls: type | None) -> str:
    """The docstring of a class: sentences as they are, `name: meaning` lines as a list."""
    if cls is None:
        return ""
    lines = (inspect.getdoc(cls) or "").splitlines()
    out: list[str] = []
    for line in lines:
        match = re.match(r"^([a-z_]+(?:, [a-z_]+)*):\s+(.*)$", line)
        if match:
            out.append(f"* `{match[1].replace(', ', '`, `')}`: {match[2]}")
        elif line.startswith("  ") and out and out[-1].startswith(("*", "  ")):
            out.append(f"  {line.strip()}")
        else:
            out.append(line)
    return "\n".join(out)


def _methods() -> Iterator[str]:
    rows = []
    for name, member in vars(Files).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function) or name in ("once", "read", "refused", "open"):
            continue
        call = f"`files.{name}`" if isinstance(member, property) else f"`files.{name}({_arguments(function)})`"
        rows.append(f"| {call} | {_first(function)} |")
    yield "\n".join(["| | |", "| --- | --- |", *rows])


def _functions() -> Iterator[str]:
    rows = []
    for name, function in vars(of_bytes).items():
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__ == of_bytes.__name__:
            rows.append(
                f"| `{name}(checkpoint{''.join(f', {a}' for a in _arguments(function).split(', ')[1:])})` | {_first(function)} |"
            )
    yield "\n".join(["| | |", "| --- | --- |", *rows])


def _arguments(function: object) -> str:
    names = [p.name for p in inspect.signature(function).parameters.values()]  # type: ignore[arg-type]
    return ", ".join(n for n in names if n != "self")


def _first(function: object) -> str:
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())


def _made_of(shown: set[type | None]) -> Iterator[str]:
    """The public classes of answers that no fact is by itself."""
    for name in sorted(vars(ckpt_rules)["_HOME_OF"]):
        cls = getattr(ckpt_rules, name)
        is_fact = inspect.isclass(cls) and cls.__module__.startswith("ckpt_rules.facts.") and cls not in shown
        if is_fact and (dataclasses.is_dataclass(cls) or issubclass(cls, tuple)) and inspect.getdoc(cls):
            yield f"### `{name}`\n\n{_fields(cls)}"

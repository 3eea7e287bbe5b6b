"""Code that a text in a checkpoint names, and the names that are harmless."""

from __future__ import annotations

import re
from typing import NamedTuple

from ckpt_rules_safety.unsafe_globals import danger

_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")


class NamedCode(NamedTuple):
    """One entry of a file that names code.

    key:  the entry, dotted
    code: what it names
    does: what a load does with it, to follow a colon
    """

    path: str
    key: str
    code: str
    does: str


def is_dotted(value: object) -> bool:
    """Whether a value is text like `module.name`."""
    return isinstance(value, str) and _DOTTED.fullmatch(value) is not None


def is_of(name: str, packages: frozenset[str]) -> bool:
    """Whether a dotted name belongs to one of these packages."""
    return name.partition(".")[0] in packages


def harm(name: str) -> str | None:
    """What a dotted name does that no configuration needs; None where it is not known to do anything."""
    if not is_dotted(name):
        return danger("builtins", name) if name.isidentifier() else None
    module, _, last = name.rpartition(".")
    return danger(module, last)

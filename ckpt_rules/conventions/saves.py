"""Names of saves, as the trainers of many scripts number them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ckpt_rules.conventions.suffixes import TORCH

_SAVE = re.compile(
    r"(?:checkpoint|ckpt|step|global_step|epoch|iter|iteration|save)s?[-_=]?(\d+)(.*)|(\d+)()"
    r"|.+[-_](?:step|epoch|iter)=(\d+)(.*)",
    re.IGNORECASE,
)
_FILE_SAVE = re.compile(
    r"(?:checkpoint|ckpt|model|step|epoch|iter|iteration|recovery)s?[-_=]?\d+.*"
    r"|(?:checkpoint|ckpt|model)[-_](?:last|latest|best|final)|last|latest|model_best",
    re.IGNORECASE,
)
LAST = re.compile(r"(?:.*[-_])?(?:last|latest|final)(?:[-_.].*)?", re.IGNORECASE)
"""Names that stand for the newest save, such as `last.ckpt`."""

TAKEN = re.compile(r"(?:.*[-_])?(?:last|latest)(?:[-_.].*)?", re.IGNORECASE)
"""Those that a trainer takes before any number."""

_STEPS = re.compile(r"(?:step|iter|iteration)s?[-_=]?(\d+)", re.IGNORECASE)
_NAMED_NUMBER = re.compile(r"(?:checkpoint|ckpt|epoch|save|model|recovery)s?[-_=]?(\d+)", re.IGNORECASE)
_ANY_NUMBER = re.compile(r"\d+")
_MIXED_SUFFIX = ".ckpt"
UNFINISHED = ("tmp", "temp", "part", "incomplete", "unfinished")
"""What a trainer, or a library that it saves with, puts into a name until the save is whole."""

TEMPORARY = ("tmp", "temp", "part", "partial", "incomplete")
"""Suffixes, without their dot, of files that are being written."""

_UNFINISHED = re.compile("|".join(UNFINISHED), re.IGNORECASE)


def saves_among(names: Iterable[str]) -> list[str]:
    """Those that are names of a run's saves (`checkpoint-500`), in the order of their numbers; unfinished ones left out.

    The first number counts, then that of steps; of equals a name with something after them (`checkpoint-500-copy`) comes
    first, and one that ends with `-last` last.
    """
    found = []
    for name in names:
        match = _SAVE.fullmatch(name)
        if match and not _UNFINISHED.search(name):
            number, rest = (g for g in match.groups() if g is not None)
            steps = [int(n[:18]) for n in _STEPS.findall(rest)]
            found.append((int(number[:18]), steps, rest.endswith("-last"), not rest, name))
    return [name for *_, name in sorted(found)]


def file_saves_among(names: Iterable[str]) -> list[str]:
    """Names of files that may each be a save of one run, oldest first: `epoch=1-step=20.ckpt`, `model_0004999.pth`, `last.ckpt`.

    They are distinguished by the numbers in their names, a number of steps before one of epochs; `last` comes last.
    """
    found = []
    for name in names:
        stem, suffix = _stem(name)
        if _UNFINISHED.search(name) or not (suffix == ".ckpt" or (suffix and _FILE_SAVE.fullmatch(stem))):
            continue
        steps = [int(n[:18]) for n in _STEPS.findall(stem)]
        numbers = [int(n[:18]) for n in re.findall(r"\d+", stem)]
        found.append((bool(LAST.match(stem)), steps or numbers[-1:] or [-1], name))
    return [name for *_, name in sorted(found)]


def mixed_saves_among(directories: Sequence[str], files: Iterable[str]) -> list[str]:
    """Names of saves that may each be a directory or a file, as Lightning's `.ckpt`, oldest first.

    None where no directory is named like such a file, or another is named like a save of a different kind.
    """
    named = [name for name in directories if name.endswith(_MIXED_SUFFIX)]
    if not named or any(not name.endswith(_MIXED_SUFFIX) for name in saves_among(directories)):
        return []
    return file_saves_among([*named, *(name for name in files if name.endswith(_MIXED_SUFFIX))])


def saves_before(name: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that differ from a save's only in their numbers and come before it, the nearest first.

    None where the name does not say which of its numbers counts: `epoch=3-loss=0.25` does, `model-7-2` does not.
    """
    number = _number(name)
    if number is None:
        return []
    return [other for found, other in sorted(_alike(name, names), reverse=True) if found < number]


def saves_after(name: str, names: Iterable[str]) -> list[str]:
    """Those that come after it, the nearest first; see `saves_before`."""
    number = _number(name)
    if number is None:
        return []
    return [other for found, other in sorted(_alike(name, names)) if found > number]


def _alike(name: str, names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The names that differ from a save's only in their numbers, and the number of each."""
    form = re.sub(r"\d+", "#", name)
    for other in names:
        number = _number(other)
        if number is not None and re.sub(r"\d+", "#", other) == form:
            yield number, other


def _number(name: str) -> int | None:
    """The number by which a save is told from others of its run."""
    stem, _ = _stem(name)
    for counted in (_STEPS, _NAMED_NUMBER, _ANY_NUMBER):
        if len(found := counted.findall(stem)) == 1:
            return int(found[0][:18])
    return None


def _stem(name: str) -> tuple[str, str]:
    suffix = next((s for s in TORCH if name.endswith(s)), "")
    return name.removesuffix(suffix) if suffix else name, suffix

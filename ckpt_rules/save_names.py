"""Names of saves: those that many trainers give, and those that installed layouts declare for their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ckpt_rules.conventions.saves import file_saves_among, saves_among

if TYPE_CHECKING:
    from ckpt_rules.traits import LayoutTraits

NUMBER = "{step}"
"""What stands for the number in a declared name."""

_PART = re.compile(r"(\{step\}|\*)")
_DIGITS = 18
"""Digits of a number that count; more of them are not a number of steps."""


def fault(declared: object) -> str | None:
    """What is wrong with a declared name, to follow it in a sentence; None where nothing is."""
    if not isinstance(declared, str):
        return "is not a string"
    if "/" in declared:
        return "holds a slash; declare the last part of the path"
    return None if declared.count(NUMBER) == 1 else f"must hold {NUMBER} once"


class SaveNames:
    """Tells saves by their names, for a set of layouts."""

    def __init__(self, layouts: Iterable[LayoutTraits]) -> None:
        layouts = tuple(layouts)
        self._directories = tuple(name for layout in layouts for name in layout.save_names)
        self._groups = tuple(layout.save_files for layout in layouts if layout.save_files)
        alone = (name for layout in layouts if layout.one_file for name in layout.save_names)
        self._files = (*alone, *(group[0] for group in self._groups))

    def directories(self, names: Sequence[str]) -> list[str]:
        """Those that are names of saves which are directories, by their numbers."""
        return _merged(saves_among(names), names, self._directories)

    def files(self, names: Sequence[str]) -> list[str]:
        """Those that are names of saves which are files, or stand for several, by their numbers."""
        parts = {n for n in names if any(number_in(n, each) is not None for g in self._groups for each in g[1:])}
        meant = [name for name in names if name not in parts]
        return _merged(file_saves_among(meant), meant, self._files)

    def declared_files(self, names: Iterable[str]) -> list[str]:
        """Those of `files` that a layout declares."""
        return _ordered(_numbered(names, self._files))


def _merged(usual: Sequence[str], names: Iterable[str], declared: Sequence[str]) -> list[str]:
    """Saves with usual names in their order, and those with declared names in the order of their numbers.

    A run has names of one kind; where it has both, those that were declared come last.
    """
    own = _ordered(_numbered(names, declared))
    return [*(name for name in usual if name not in set(own)), *own]


def _numbered(names: Iterable[str], declared: Sequence[str]) -> Iterator[tuple[int, str]]:
    for name in names:
        number = next((n for pattern in declared if (n := number_in(name, pattern)) is not None), None)
        if number is not None:
            yield number, name


def _ordered(found: Iterable[tuple[int, str]]) -> list[str]:
    return [name for _, name in sorted(found)]


def number_in(name: str, declared: str) -> int | None:
    """The number that a name has where a declared one has `{step}`; None where it is no such name."""
    match = _compiled(declared).fullmatch(name)
    return int(match[1]) if match else None


def files_of_save(name: str, declared: Sequence[str], beside: Iterable[str]) -> tuple[str, ...]:
    """Names of the files beside the one that stands for a save, and of itself, that make up the save; () where it is none."""
    number = number_in(name, declared[0]) if declared else None
    if number is None:
        return ()
    others = (each for each in beside if any(number_in(each, pattern) == number for pattern in declared))
    return tuple(sorted({name, *others}))


@lru_cache(maxsize=256)
def _compiled(declared: str) -> re.Pattern[str]:
    parts = {NUMBER: rf"(\d{{1,{_DIGITS}}})", "*": ".*"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in _PART.split(declared)))

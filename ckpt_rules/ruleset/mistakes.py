"""Collects what is wrong in ruleset files, so that the user sees all of it at once, each in its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from ckpt_rules.errors import RulesetError, RulesetProblem

MAX_PROBLEMS = 100
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file, both numbers 1-based."""

    line: int
    column: int


class Mistakes:
    """Mistakes in the files of one ruleset."""

    def __init__(self) -> None:
        self._found: dict[RulesetProblem, None] = {}
        self._settled: set[tuple[str, Mark | None]] = set()
        self._files: set[str] = set()

    def add(self, file: str, mark: Mark | None, message: str, *, last: bool = False) -> None:
        """Note a mistake; `mark` is None for one of the file as a whole.

        `last` says that whatever else is found in that place follows from this. Too many mistakes are raised at once.
        """
        if (file, mark) in self._settled:
            return
        if last:
            self._settled.add((file, mark))
        line, column = (mark.line, mark.column) if mark else (0, 0)
        self._found[RulesetProblem(file, line, column, message)] = None
        self._files.add(file)
        if len(self._found) >= MAX_PROBLEMS:
            stopped = f"there may be more, but reading stopped at {MAX_PROBLEMS} mistakes"
            raise RulesetError([*self._found, RulesetProblem(file, 0, 0, stopped)])

    def __contains__(self, file: str) -> bool:
        return file in self._files

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        """Raise all of them, if there are any."""
        if self._found:
            raise RulesetError(list(self._found))


def quoted(value: str) -> str:
    """A value from the file as a message shows it: in quotes, escaped, and not endless."""
    return repr(value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…")


def suggestion(name: str, names: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no name is near."""
    near = nearest(name, names)
    return f" (did you mean {near!r}?)" if near else ""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was most probably meant; capitals, blanks and underscores don't count."""
    by_letters = {_folded(n): n for n in names}
    # difflib takes seconds for a name of a hundred thousand characters
    found = get_close_matches(_folded(name[:_LONGEST]), by_letters, n=1, cutoff=0.7)
    return by_letters[found[0]] if found else None


def _folded(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`, or `none`."""
    *most, final = list(names) or ["none"]
    return f"{', '.join(most)} {last} {final}" if most else final

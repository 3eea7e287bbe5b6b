"""Keys that are nearly right: which name was probably meant."""

from __future__ import annotations

from collections.abc import Iterable

_SHORTEST = 4
_LONG = 9
_APPENDED = 2


def misspelling_of(key: str, names: Iterable[str]) -> str | None:
    """The name that a key is probably a misspelling of, or None.

    One slip (a letter left out, added, changed, or two swapped) in names of at least 4 letters, two in those of 9 or
    more; or the same letters with other capitals or separators. A name with something appended (`optimizer_G`) is
    another name, no slip.
    """
    found = [(_distance(key, name), name) for name in names if _comparable(key, name)]
    close = [(d, name) for d, name in found if d <= (2 if len(name) >= _LONG else 1)]
    return min(close)[1] if close else None


def is_almost(key: str, name: str) -> bool:
    """Whether a key is a misspelling of a name, or the name with a letter or two at either end that make no word."""
    more = abs(len(key) - len(name))
    longer = 0 < more <= _APPENDED and len(key) > len(name) and (key.startswith(name) or key.endswith(name))
    if longer:
        added = key.removeprefix(name) if key.startswith(name) else key.removesuffix(name)
        return added.isalpha() and added != "s"
    return misspelling_of(key, (name,)) is not None


def _comparable(key: str, name: str) -> bool:
    return (
        len(name) >= _SHORTEST and key != name and not key.startswith(name) and abs(len(key) - len(name)) <= _SHORTEST
    )


def _distance(key: str, name: str) -> int:
    """Slips between two words; 0 where only capitals and separators differ."""
    if _letters(key) == _letters(name):
        return 0
    rows = [list(range(len(name) + 1))]
    for i, a in enumerate(key, 1):
        row = [i]
        for j, b in enumerate(name, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == name[j - 2] and key[i - 2] == b:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def _letters(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())

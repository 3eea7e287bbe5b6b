"""The names and the items of a `.metadata`, each different value once."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TypeVar

from ckpt_rules.facts.distributed import StoredItem, StoredItems
from ckpt_rules.readers.pickle.stack import UNSET

T = TypeVar("T")


class Names:
    """The names of tensors and objects, each once, and the values of the memo that are names."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}
        self._at = array("Q")
        self._number_at = array("I")

    def number(self, text: str) -> int:
        """The number of a name; the next one where it is new."""
        return _number(text, self._numbers, self.texts)

    def remember(self, index: int, number: int) -> None:
        """Note that a value of the memo, a later one than all before, is a name."""
        self._at.append(index)
        self._number_at.append(number)

    def tell(self, index: int) -> object:
        """The name that is a value of the memo; `UNSET` where none is."""
        place = bisect_left(self._at, index)
        known = place < len(self._at) and self._at[place] == index
        return self.texts[self._number_at[place]] if known else UNSET


class ItemTable:
    """Items as they are put together, and the stream extensions that any of them was written through."""

    def __init__(self, names: Names) -> None:
        self.items = StoredItems(names=names.texts)
        self._names = names
        self._corners: dict[tuple[int, ...], int] = {}
        self._paths: dict[str, int] = {}
        self.transforms: set[str] = set()

    def append(self, item: StoredItem) -> None:
        """Take one more item."""
        name, path, offset, nbytes, corner = item
        self.add(self._names.number(name), self.path(path), offset, nbytes, self.corner(corner))

    def add(self, name: int, path: int, offset: int, nbytes: int, corner: int) -> None:
        """Take one more item by the numbers of its name, path and corner."""
        items = self.items
        items.name_numbers.append(name)
        items.path_numbers.append(path)
        items.offsets.append(offset)
        items.lengths.append(nbytes)
        items.corner_numbers.append(corner)

    def path(self, path: str) -> int:
        """The number of a path."""
        return _number(path, self._paths, self.items.paths)

    def corner(self, corner: tuple[int, ...]) -> int:
        """The number of a corner."""
        return _number(corner, self._corners, self.items.corners)

    def beside(self, path: str) -> StoredItems:
        """The items, the paths of their files taken to be relative to where a file lies, and made those in the checkpoint."""
        folder = path.rpartition("/")[0]
        if folder:
            self.items.paths[:] = [f"{folder}/{each}" for each in self.items.paths]
            self._paths = {each: number for number, each in enumerate(self.items.paths)}
        return self.items


def _number(value: T, numbers: dict[T, int], values: list[T]) -> int:
    """The number of a value; the next one where it is new."""
    number = numbers.setdefault(value, len(values))
    if number == len(values):
        values.append(value)
    return number

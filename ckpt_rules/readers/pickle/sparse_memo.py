"""The memo of a pickle of which most values are told from their bytes, and never built."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.readers.pickle.stack import UNSET


def is_changeable(value: object) -> bool:
    """Whether opcodes can change a value so that facts which were told from it no longer hold."""
    return isinstance(value, list | dict | set) or (isinstance(value, Opaque) and value.state is not None)


class SparseMemo:
    """What a pickle machine asks of its memo, which is a list elsewhere, with room for values that are not kept.

    further: gives the value of a number that was skipped, or `UNSET`
    """

    __slots__ = ("_kept", "_size", "further")

    def __init__(self) -> None:
        self._kept: dict[int, object] = {}
        self._size = 0
        self.further: list[Callable[[int], object]] = []

    def __len__(self) -> int:
        """The number that the next value gets."""
        return self._size

    def __getitem__(self, index: int) -> object:
        """The value of a number; `UNSET` where it is not kept."""
        if index in self._kept:
            return self._kept[index]
        for tell in self.further:
            value = tell(index)
            if value is not UNSET:
                return value
        return UNSET

    def __setitem__(self, index: int, value: object) -> None:
        raise FormatError("a value of the memo is replaced, by which what was read before would have to be read again")

    def append(self, value: object) -> None:
        """Remember a value under the next number."""
        self._kept[self._size] = value
        self._size += 1

    def extend(self, values: Iterable[object]) -> None:
        """Remember values under the next numbers."""
        for value in values:
            self.append(value)

    def forget_since(self, start: int) -> None:
        """Forget, of the values from a number on, what could be changed by whoever asks for it."""
        for index in range(start, self._size):
            if is_changeable(self._kept.get(index)):
                del self._kept[index]

    def changeable(self) -> frozenset[int]:
        """The numbers of kept values that can be changed."""
        return frozenset(index for index, value in self._kept.items() if is_changeable(value))

    def skip(self, count: int) -> None:
        """Give away numbers whose values are not kept."""
        self._size += count

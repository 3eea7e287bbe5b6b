"""The pairs that fill the large dictionaries of a `.metadata`, read by comparing their bytes with pairs that were run.

A pair that the pickle machine ran is learned: its bytes, but for names, paths and numbers. Where the same bytes come again
they do the same again, since a memo only grows; what they say is then known, and nothing is built for them.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter
from typing import ClassVar, Protocol

from ckpt_rules.errors import FormatError
from ckpt_rules.facts.distributed import StoredTensor
from ckpt_rules.readers.dcp.names import ItemTable, Names
from ckpt_rules.readers.dcp.objects import LARGEST, is_object, stored_item, stored_tensor, transforms_of
from ckpt_rules.readers.dcp.text import NEW_TEXT, NUMBER_NBYTES, number_of, text_at
from ckpt_rules.readers.pickle.opcode_lengths import MEMOIZE, op_starts
from ckpt_rules.readers.pickle.sparse_memo import SparseMemo
from ckpt_rules.readers.pickle.stack import UNSET

_LENGTHS_TRIED = 64

_GET = rb"(?:h.|j....)"
_TEXT = rb"(\x8c.[ -~]*\x94|h.|j....)"
_NUMBER = rb"(K.|M..|J....|\x8a\x05.{5}|\x8a\x06.{6}|\x8a\x07.{7}|\x8a\x08.{8})"
_OBJECT = _GET + rb"\)\x81\x94\}\x94\(" + _GET
_PLACE = re.compile(
    b"(" + _OBJECT + b")" + _TEXT + rb"(.{4,400}?ub" + _OBJECT + b")" + _TEXT
    + b"(" + _GET + b")" + _NUMBER + b"(" + _GET + b")" + _NUMBER + rb"(.{0,64}?ub)",
    re.DOTALL,
)  # fmt: skip
_ATTRIBUTES = {"fqn": 1, "relative_path": 1, "offset": 2, "length": 1}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3, b"t": None}
_FIRST, _NAME, _MIDDLE, _PATH, _BEFORE, _OFFSET, _BETWEEN, _LENGTH, _REST = range(1, 10)


_VALUE_OF = {_NAME: "fqn", _PATH: "relative_path", _OFFSET: "offset", _LENGTH: "length"}


class Unlike(FormatError):
    """Something that the pairs of a `.metadata` do not do: the pickle must be run as a whole."""


class Values(Protocol):
    """What reads the values that fill one dictionary or list.

    width:     how many a machine puts on its stack for one: a key and a value, or an element
    ends_with: the opcode that sets or appends them
    """

    width: ClassVar[int]
    ends_with: ClassVar[int]

    def add(self, *values: object) -> None:
        """Take what was run."""
        ...

    def learn(self, data: bytes, start: int, end: int, *values: object) -> None:
        """Learn from the bytes of what was run."""
        ...

    def read(self, data: bytes, pos: int, limit: int) -> int:
        """Read what is like that which was learned; the byte behind the last."""
        ...


class Pairs:
    """What is common to the readers of dictionaries."""

    width: ClassVar[int] = 2
    ends_with: ClassVar[int] = b"u"[0]


class Kind:
    """The bytes of one value of `state_dict_metadata`, and what they say.

    memos: how many values of the memo they make
    after: the kind that followed it last, the best guess for what follows it next
    """

    __slots__ = ("after", "fact", "memos", "raw")

    def __init__(self, raw: bytes, fact: StoredTensor | None, memos: int) -> None:
        self.raw, self.fact, self.memos = raw, fact, memos
        self.after: Kind | None = None


class Tensors(Pairs):
    """`state_dict_metadata`: a name, and what is known of the tensor or object. Layers repeat that to the byte."""

    def __init__(self, names: Names, memo: SparseMemo) -> None:
        self.found: dict[str, StoredTensor] = {}
        self.objects: set[str] = set()
        self._names, self._memo = names, memo
        self._kinds: dict[bytes, Kind] = {}
        self._lengths: list[int] = []
        self._last: Kind | None = None

    def add(self, *values: object) -> None:
        """Take a pair that was run."""
        key, value = values
        fact = stored_tensor(value)
        if not isinstance(key, str) or not (fact or is_object(value)):
            raise Unlike("a pair describes no tensor and no object")
        self._take(self._names.texts[self._names.number(key)], fact)

    def learn(self, data: bytes, start: int, end: int, *values: object) -> None:
        """Learn the bytes behind the name."""
        key, value = values
        starts, (text, at, _) = op_starts(data, start, end), text_at(data, start, self._memo)
        if starts is None or text != key:
            return
        kind = Kind(data[at:end], stored_tensor(value), _memos(data, starts, at, end))
        self._kinds[kind.raw] = self._follow(kind)
        self._try_first(len(kind.raw))

    def read(self, data: bytes, pos: int, limit: int) -> int:
        """Read pairs whose bytes behind the name are known."""
        memo, names = self._memo, self._names
        while pos < limit:
            text, start, is_new = text_at(data, pos, memo)
            kind = self._kind_at(data, start)
            if text is None or kind is None or (end := start + len(kind.raw)) > limit:
                break
            number = names.number(text)
            if is_new:
                names.remember(len(memo), number)
            memo.skip(kind.memos + is_new)
            self._take(names.texts[number], kind.fact)
            pos = end
        return pos

    def _take(self, name: str, fact: StoredTensor | None) -> None:
        if name in self.found or name in self.objects:
            raise Unlike(f"{name} is described twice")
        if fact is None:
            self.objects.add(name)
        else:
            self.found[name] = fact

    def _kind_at(self, data: bytes, start: int) -> Kind | None:
        guess = self._last.after if self._last else None
        if guess and data.startswith(guess.raw, start):
            self._last = guess
            return guess
        for length in self._lengths:
            kind = self._kinds.get(data[start : start + length])
            if kind:
                self._try_first(length)
                return self._follow(kind)
        return None

    def _follow(self, kind: Kind) -> Kind:
        if self._last:
            self._last.after = kind
        self._last = kind
        return kind

    def _try_first(self, length: int) -> None:
        if length in self._lengths:
            self._lengths.remove(length)
        self._lengths.insert(0, length)
        del self._lengths[_LENGTHS_TRIED:]


class Places(Pairs):
    """`storage_data`: the name and the corner of a chunk, and its file, first byte and length."""

    def __init__(self, names: Names, memo: SparseMemo) -> None:
        self.table = ItemTable(names)
        self._names, self._memo = names, memo
        self._first: dict[bytes, int] = {}
        self._middle: dict[bytes, tuple[int, int]] = {}
        self._last: dict[tuple[bytes, bytes, bytes], int] = {}
        self._path_at: dict[bytes, int] = {}

    def add(self, *values: object) -> None:
        """Take a pair that was run."""
        item = stored_item(*values)
        if item is None:
            raise Unlike("a pair says of no chunk where it lies")
        self.table.append(item)
        self.table.transforms.update(transforms_of(values[1]))

    def learn(self, data: bytes, start: int, end: int, *values: object) -> None:
        """Learn what stands around name, path and numbers, where they are what they seem to be."""
        match, starts, item = _PLACE.fullmatch(data, start, end), op_starts(data, start, end), stored_item(*values)
        if not match or starts is None or item is None or not set(starts).issuperset(map(match.start, range(1, 10))):
            return
        parts = match.groups()
        name, path, offset, nbytes = (parts[n - 1] for n in (_NAME, _PATH, _OFFSET, _LENGTH))
        seen = (text_at(name, 0, self._memo)[0], text_at(path, 0, self._memo)[0], number_of(offset), number_of(nbytes))
        # Where two of them are the same, or an attribute is set twice, which is which can't be told.
        attributes = Counter(text_at(data, at, self._memo)[0] for at in starts)
        if seen != item[:4] or item.name == item.path or item.offset == item.nbytes:
            return
        if any(attributes[name] != count for name, count in _ATTRIBUTES.items()):
            return
        before = dict(zip(starts[1:], starts, strict=False))
        if any(text_at(data, before[match.start(n)], self._memo)[0] != name for n, name in _VALUE_OF.items()):
            return
        memos = {n: _memos(data, starts, *match.span(n)) for n in (_FIRST, _MIDDLE, _BEFORE, _BETWEEN, _REST)}
        self._first[match[_FIRST]] = memos[_FIRST]
        self._middle[match[_MIDDLE]] = memos[_MIDDLE], self.table.corner(item.corner)
        self._last[match[_BEFORE], match[_BETWEEN], match[_REST]] = memos[_BEFORE] + memos[_BETWEEN] + memos[_REST]

    def read(self, data: bytes, pos: int, limit: int) -> int:
        """Read pairs that differ from those that were learned in name, path and numbers alone."""
        memo, names = self._memo, self._names
        while match := _PLACE.match(data, pos, limit):
            first, name, middle, path, before, offset, between, length, rest = match.groups()
            memos, known = self._first.get(first), self._middle.get(middle)
            more = self._last.get((before, between, rest))
            if memos is None or known is None or more is None:
                break
            text, end, is_new = text_at(name, 0, memo)
            file = self._path_of(path)
            start, nbytes = number_of(offset), number_of(length)
            if (
                text is None
                or end != len(name)
                or file is None
                or not 0 <= start <= LARGEST
                or not 0 <= nbytes <= LARGEST
            ):
                break
            number = names.number(text)
            index = len(memo) + memos
            if is_new:
                names.remember(index, number)
            memo.skip(memos + is_new + known[0])
            if path[0] == NEW_TEXT:
                memo.append(self.table.items.paths[file])
            memo.skip(more)
            self.table.add(number, file, start, nbytes, known[1])
            pos = match.end()
        return pos

    def _path_of(self, raw: bytes) -> int | None:
        """The number of the path that an opcode gives."""
        number = self._path_at.get(raw)
        if number is None:
            text, end, is_new = text_at(raw, 0, self._memo)
            if text is None or end != len(raw):
                return None
            number = self.table.path(text)
            if not is_new:
                self._path_at[raw] = number
        return number


class Paths(Pairs):
    """`planner_data`: a name, and a tuple of the keys that lead to it. It is passed over, for no load asks for it."""

    def __init__(self, memo: SparseMemo) -> None:
        self._memo = memo
        self._data = b""
        self._starts, self._memos = array("Q"), array("Q")
        self._told: dict[int, object] = {}

    def add(self, *values: object) -> None:
        """Take a pair that was run."""
        key, value = values
        if not isinstance(key, str) or not isinstance(value, tuple):
            raise Unlike("a pair is not a name with a path")

    def learn(self, data: bytes, start: int, end: int, *values: object) -> None:
        """Nothing: such a pair tells by itself that it is one."""

    def read(self, data: bytes, pos: int, limit: int) -> int:
        """Pass over pairs of a text and a tuple of texts and numbers."""
        self._data, memo = data, self._memo
        while pos < limit and (pair := self._pair(pos)) and pair[0] <= limit:
            end, new = pair
            self._starts.append(pos)
            self._memos.append(len(memo))
            memo.skip(len(new) + 1)
            pos = end
        return pos

    def tell(self, index: int) -> object:
        """The text of a pair that is a value of the memo; `UNSET` where none is."""
        if index not in self._told:
            self._told[index] = self._find(index)
        return self._told[index]

    def _find(self, index: int) -> object:
        place = bisect_right(self._memos, index) - 1
        pair = self._pair(self._starts[place]) if place >= 0 else None
        new, which = (pair[1], index - self._memos[place]) if pair else ([], 0)
        return text_at(self._data, new[which], self._memo)[0] if which < len(new) else UNSET

    def _pair(self, pos: int) -> tuple[int, list[int]] | None:
        """The byte behind a pair, and where texts are in it that are new in the memo; None where there is no pair."""
        data, memo, new = self._data, self._memo, []
        text, at, is_new = text_at(data, pos, memo)
        if text is None:
            return None
        if is_new:
            new.append(pos)
        is_marked = data[at : at + 1] == b"("
        at += is_marked
        count = 0
        while data[at : at + 1] not in _TUPLES:
            text, end, is_new = text_at(data, at, memo)
            if text is None:
                if data[at] not in NUMBER_NBYTES:
                    return None
                end = at + 1 + NUMBER_NBYTES[data[at]]
            elif is_new:
                new.append(at)
            at, count = end, count + 1
        fits = (
            is_marked if _TUPLES[data[at : at + 1]] is None else _TUPLES[data[at : at + 1]] == count and not is_marked
        )
        return (at + 2, new) if fits and data[at + 1 : at + 2] == MEMOIZE else None


def _memos(data: bytes, starts: list[int], start: int, end: int) -> int:
    """How many values the opcodes between two bytes put into the memo."""
    return sum(1 for at in starts if start <= at < end and data[at] == MEMOIZE[0])

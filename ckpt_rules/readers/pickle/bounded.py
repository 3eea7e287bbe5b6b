"""Makes a value that came out of a pickle safe to walk: no cycles, no great depth, no sharing that multiplies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ckpt_rules.facts.tensors import Opaque
from ckpt_rules.limits import Limits
from ckpt_rules.readers.budget import LimitError

# A container of this size that holds no container is not worth remembering: meeting it again costs less.
_SMALL = 16

RECURSION, TOO_DEEP = "<recursion>", "<nested too deeply>"

_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, Opaque})


def bounded(value: object, limits: Limits) -> tuple[object, bool]:
    """The value, changed in place, with an `Opaque` of type `<recursion>` or `<nested too deeply>` where it would continue.

    The second result tells whether something was too deep. LimitError where a walk would meet too many values, because
    parts are shared by parts that are shared themselves.
    """
    walk = _Walk(limits.levels)
    value = walk.visit(value, 0)
    if walk.size > limits.values:
        raise LimitError.past("values", f"the pickle unfolds into more than {limits.values:,} values")
    return value, walk.was_cut


class _Seen(NamedTuple):
    """What is known of a container: its values, each as often as a walk meets it, its levels, and what stands for it."""

    size: int
    levels: int
    value: object


class _Walk:
    """One walk. `size` and `levels` are those of the value visited last."""

    def __init__(self, most_levels: int) -> None:
        self.size, self.levels = 1, 0
        self.was_cut = False
        self._most_levels = most_levels
        self._seen: dict[int, _Seen | None] = {}
        self._replaced: list[object] = []  # kept alive, so that no other value takes its id

    def visit(self, value: object, depth: int) -> object:
        """The value, or what stands for it at this depth."""
        self.size, self.levels = 1, 0
        if type(value) not in _CONTAINERS:
            return value
        if id(value) in self._seen:
            return self._again(value, depth)
        if depth >= self._most_levels:
            self.was_cut = True
            return Opaque(TOO_DEEP)
        self._seen[id(value)] = None
        size, levels = 1, 0
        changes = []
        for place, part in _parts(value):
            size += 1
            if type(part) in _CONTAINERS:
                new = self.visit(part, depth + 1)
                size += self.size - 1
                levels = max(levels, self.levels + 1)
                if new is not part:
                    changes.append((place, new))
        new = _with(value, changes) if changes else value
        if new is not value:
            self._replaced.append(value)
        if levels or size > _SMALL:
            self._seen[id(value)] = _Seen(size, levels, new)
        else:
            del self._seen[id(value)]
        self.size, self.levels = size, levels
        return new

    def _again(self, value: object, depth: int) -> object:
        seen = self._seen[id(value)]
        if seen is None:
            return Opaque(RECURSION)
        if depth + seen.levels > self._most_levels:
            self.was_cut = True
            return Opaque(TOO_DEEP)
        self.size, self.levels = seen.size, seen.levels
        return seen.value


def _parts(value: Any) -> Iterable[tuple[object, object]]:
    """Everything directly inside a container, with its place: a key, an index, an element, a field and an index."""
    if type(value) is dict:
        return value.items()
    if type(value) is Opaque:
        return _parts_of_opaque(value)
    if type(value) in (list, tuple):
        return enumerate(value)
    return ((part, part) for part in value)


def _parts_of_opaque(value: Opaque) -> Iterator[tuple[object, object]]:
    yield ("state", None), value.state
    for field in ("args", "items"):
        for index, part in enumerate(getattr(value, field)):
            yield (field, index), part
    for name, part in value.kwargs.items():
        yield ("kwargs", name), part
    for index, pair in enumerate(value.pairs):
        yield ("key", index), pair[0]
        yield ("value", index), pair[1]


def _with(value: Any, changes: list[tuple[Any, object]]) -> object:
    """The container with some parts changed: the same one, or a new one where its kind can't be changed."""
    if type(value) is Opaque:
        _change_opaque(value, changes)
        return value
    if type(value) in (set, frozenset):
        old = {place for place, _ in changes}
        return type(value)([part for part in value if part not in old] + [new for _, new in changes])
    target = list(value) if type(value) is tuple else value
    for place, new in changes:
        target[place] = new
    return tuple(target) if type(value) is tuple else target


def _change_opaque(value: Opaque, changes: list[tuple[Any, object]]) -> None:
    args, kwargs = list(value.args), dict(value.kwargs)
    fields: dict[str, Any] = {"args": args, "kwargs": kwargs, "items": value.items}
    for (field, index), new in changes:
        if field == "state":
            value.state = new
        elif field in fields:
            fields[field][index] = new
        else:
            key, old = value.pairs[index]
            value.pairs[index] = (new, old) if field == "key" else (key, new)
    value.args, value.kwargs = tuple(args), kwargs

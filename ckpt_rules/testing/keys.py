"""Dotted paths into nested dictionaries, lists and tuples: `optimizer_state_dict.param_groups.0.lr`.

Tensor names hold dots themselves, so at each dictionary the longest stretch of the path that is a key is taken.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any

Change = Callable[[Any, Any], None]


def drop(value: Any, path: str) -> Any:
    """The value without what lies at the path; dictionaries and lists are changed in place."""

    def change(container: Any, key: Any) -> None:
        del container[key]

    return _changed(value, path, path, change)


def put(value: Any, path: str, new: object) -> Any:
    """The value with `new` at the path; the last part of the path need not exist yet."""

    def change(container: Any, key: Any) -> None:
        container[key] = new

    return _changed(value, path, path, change, may_be_new=True)


def rename(value: Any, path: str, name: str) -> Any:
    """The value with the key at the path called `name`, in the same position."""

    def change(container: Any, key: Any) -> None:
        if not isinstance(container, MutableMapping):
            raise KeyError(f"{path!r} is an item of a list; only keys of a dictionary can be renamed")
        items = [(name if k == key else k, v) for k, v in container.items()]
        container.clear()
        container.update(items)

    return _changed(value, path, path, change)


def _changed(value: Any, path: str, whole: str, change: Change, *, may_be_new: bool = False) -> Any:
    if isinstance(value, tuple):
        return tuple(_changed(list(value), path, whole, change))
    key, rest = _step(value, path, whole, may_be_new=may_be_new)
    if rest:
        value[key] = _changed(value[key], rest, whole, change, may_be_new=may_be_new)
    else:
        change(value, key)
    return value


def _step(value: Any, path: str, whole: str, *, may_be_new: bool) -> tuple[Any, str]:
    """The first key of the path in this container, and the rest of the path."""
    if isinstance(value, MutableSequence):
        head, _, rest = path.partition(".")
        if head.isdigit() and int(head) < len(value):
            return int(head), rest
    elif isinstance(value, MutableMapping):
        parts = path.split(".")
        for count in range(len(parts), 0, -1):
            head, rest = ".".join(parts[:count]), ".".join(parts[count:])
            if head in value:
                return head, rest
            if head.isdigit() and int(head) in value:
                return int(head), rest
        if may_be_new and len(parts) == 1:
            return path, ""
    raise KeyError(f"{whole!r}: there is no {path!r} in {_contents(value)}")


def _contents(value: Any) -> str:
    if isinstance(value, MutableMapping):
        return f"a dictionary with the keys {', '.join(map(repr, list(value)[:20]))}"
    if isinstance(value, MutableSequence):
        return f"a list of {len(value)} items"
    return f"a {type(value).__name__}"

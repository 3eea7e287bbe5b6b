"""One field of what a file holds: chosen at random, and replaced, dropped or renamed in a copy."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

DROP = object()
_STOPS, _LONG = 0.12, 8
Path = tuple[Any, ...]


class Edit(NamedTuple):
    """where: the field, by the keys that lead to it; how: what became of it; tree: the whole, edited."""

    where: str
    how: str
    tree: Any


def edit(rng: Random, tree: Any) -> Edit:
    """The tree with one field changed."""
    path = _field(rng, tree)
    value, parent = at(tree, path), at(tree, path[:-1]) if path else None
    where = "/".join(map(str, path))
    if isinstance(parent, dict) and rng.random() < 0.12:
        return Edit(where, "renamed", renamed(tree, path, f"{path[-1]}x"))
    if path and rng.random() < 0.2:
        return Edit(where, "dropped", changed(tree, path, DROP))
    if rng.random() < 0.1:
        other = _field(rng, tree)
        return Edit(where, f"={'/'.join(map(str, other))}", changed(tree, path, at(tree, other)))
    how, new = _other(rng, value)
    return Edit(where, how, changed(tree, path, new))


def _field(rng: Random, tree: Any) -> Path:
    """From the root downward; long lists are entered at either end or anywhere."""
    path: list[Any] = []
    while isinstance(tree, dict | list | tuple) and len(tree) and (not path or rng.random() > _STOPS):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        if not isinstance(tree, dict) and len(tree) > _LONG:
            keys = [0, len(tree) - 1, rng.randrange(len(tree))]
        path.append(rng.choice(keys))
        tree = tree[path[-1]]
    return tuple(path) if rng.random() > 0.03 else ()


def at(tree: Any, path: Path) -> Any:
    """What lies at a path."""
    for key in path:
        tree = tree[key]
    return tree


def changed(tree: Any, path: Path, new: Any) -> Any:
    """A copy in which something else lies at a path, or nothing."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    if isinstance(tree, dict):
        return _like(tree, [(k, changed(v, rest, new) if k == key else v) for k, v in tree.items()])
    items = [changed(v, rest, new) if i == key else v for i, v in enumerate(tree)]
    items = [v for v in items if v is not DROP]
    return items if isinstance(tree, list) else tuple(items)


def renamed(tree: Any, path: Path, name: Any) -> Any:
    """A copy in which a key of a mapping reads otherwise."""
    parent = at(tree, path[:-1])
    return changed(tree, path[:-1], _like(parent, [(name if k == path[-1] else k, v) for k, v in parent.items()]))


def _like(tree: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> Any:
    kept = [(k, v) for k, v in pairs if v is not DROP]
    try:
        return type(tree)(kept)
    except TypeError:
        return dict(kept)


def _other(rng: Random, value: Any) -> tuple[str, Any]:
    """Something else in the place of a value, and what to call it."""
    import torch

    general: list[tuple[str, Any]] = [("null", None), ("text", "x"), ("{}", {}), ("[]", []), ("0", 0), ("[0]", [0])]
    if rng.random() < 0.3:
        return rng.choice(general)
    return rng.choice([*(_of_kind(value, torch)), general[0]])


def _of_kind(value: Any, torch: Any) -> list[tuple[str, Any]]:
    if isinstance(value, bool):
        return [("not", not value), ("not", not value), ("as a number", int(value))]
    if isinstance(value, int | float):
        return _numbers(value)
    if isinstance(value, str):
        return [("''", ""), ("longer", value + "x"), ("cut", value[:-1]), ("as a list", [value])]
    if isinstance(value, dict):
        half = [key for i, key in enumerate(value) if i % 2]
        return [("{}", {}), ("half", _like(value, [(k, value[k]) for k in half])), ("as a list", list(value.values())),
                ("one key more", _like(value, [*value.items(), ("unheard_of", 1)])),
                ("reversed", _like(value, list(value.items())[::-1]))]  # fmt: skip
    if isinstance(value, list | tuple):
        kind = list if isinstance(value, list) else tuple
        return [("[]", kind()), ("one less", kind(value[:-1])), ("one more", kind([*value, *value[-1:]])),
                ("reversed", kind(value[::-1])), ("twice", kind([*value, *value]))]  # fmt: skip
    return [(how, new()) for how, new in _tensors(value, torch)] if isinstance(value, torch.Tensor) else []


def _numbers(value: float) -> list[tuple[str, Any]]:
    return [
        ("+1", value + 1), ("-1", value - 1), ("doubled", value * 2), ("tenfold", value * 10), ("negative", -value),
        ("=-1", -1), ("=0", 0), ("1e30", 1e30), ("nan", float("nan")), ("inf", float("inf")), ("10**30", 10**30),
        ("as text", str(value)), ("as a list", [value]), ("halved", value / 2), ("a bit more", value * 1.01),
        ("as the other kind", float(value) if isinstance(value, int) else int(value) if value == value and abs(value) < 1e18 else 0),  # noqa: PLR0124
    ]  # fmt: skip


def _tensors(value: Any, torch: Any) -> list[tuple[str, Callable[[], Any]]]:
    def one_element(new: float) -> Any:
        copy = value.clone()
        if copy.numel():
            copy.view(-1)[0] = new if copy.is_floating_point() else int(copy.view(-1)[0]) ^ 1
        return copy

    first = float(value.reshape(-1)[0]) if value.numel() else 0.0
    found: list[tuple[str, Callable[[], Any]]] = [
        ("zeros", lambda: torch.zeros_like(value)),
        ("int64", lambda: value.to(torch.int64)),
        ("float16", lambda: value.to(torch.float16)),
        ("float64", lambda: value.to(torch.float64)),
        ("one element", lambda: one_element(first * 1.01 + 0.01)),
        ("as a list", value.tolist),
        ("without elements", lambda: torch.zeros(0, dtype=value.dtype)),
        ("one dimension more", lambda: value.unsqueeze(0).clone()),
        ("uint8", lambda: value.to(torch.uint8)),
    ]
    if value.is_floating_point():
        found += [
            ("nan", lambda: torch.full_like(value, float("nan"))),
            ("one nan", lambda: one_element(float("nan"))),
            ("1e30", lambda: torch.full_like(value, 1e30)),
            ("negative", lambda: -value - 1),
            ("tenfold", lambda: value * 10),
        ]
    if value.ndim:
        found += [
            ("cut", value[:-1].clone),
            ("repeated", lambda: torch.cat([value, value])),
            ("flat", lambda: value.reshape(-1).clone()),
            ("transposed", lambda: value.t().contiguous() if value.ndim == 2 else value.flip(0).clone()),
        ]
    return found

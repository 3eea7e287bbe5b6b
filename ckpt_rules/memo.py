"""What was computed once, under what it was asked for by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from ckpt_rules.errors import FactUnavailable

T = TypeVar("T")


class Memo:
    """Values by their keys; one that could not be had raises the same `FactUnavailable` for everybody who asks."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[bool, Any]] = {}

    def get(self, key: object, compute: Callable[[], T]) -> T:
        """The value under a key, computed when first asked for."""
        if key not in self._known:
            try:
                self._known[key] = (True, compute())
            except FactUnavailable as absent:
                self._known[key] = (False, absent)
        known, value = self._known[key]
        if not known:
            raise FactUnavailable(value.reason, path=value.path, blocked=value.blocked)
        return cast("T", value)

    def __len__(self) -> int:
        return len(self._known)

    def forget_all_but(self, first: int) -> None:
        """Forget all but the values that were computed first, so many of them."""
        for key in list(self._known)[first:]:
            del self._known[key]

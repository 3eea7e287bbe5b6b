"""The values of every tensor of a checkpoint, as plain data."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ckpt_rules.errors import UsageError
from ckpt_rules.finding import Text, Value
from ckpt_rules.report import Notice


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorStats(_Model):
    """The values of one tensor. Where its bytes could not be read, `unread` says why and all values are absent."""

    path: Text = Field(description="The file that names it.")
    tensor: Text = Field(description="Its name in that file.")
    dtype: str
    shape: tuple[int, ...]
    numel: int = Field(description="Elements.")
    nan: int | None = None
    inf: int | None = Field(default=None, description="Values that are infinite, of either sign.")
    first: tuple[int, ...] | None = Field(default=None, description="Index of the first value that is not finite.")
    smallest: Value = Field(default=None, description="Of the finite values, as are all that follow.")
    largest: Value = None
    mean: Value = None
    peak: Value = Field(default=None, description="The largest absolute value.")
    norm: Value = Field(default=None, description="The Euclidean (L2) norm.")
    zeros: float | None = Field(default=None, description="Share of zeros, 0 to 1.")
    constant: bool | None = Field(default=None, description="Whether all values are one and the same finite number.")
    unread: Text | None = None

    @property
    def non_finite(self) -> int:
        """How many values are infinite or not a number."""
        return (self.nan or 0) + (self.inf or 0)


class CheckpointStats(_Model):
    """Every tensor that was asked for, in the order of the files."""

    checkpoint: Text
    tensors: tuple[TensorStats, ...]
    nbytes: int = Field(description="Bytes that were read.")
    faults: dict[str, Text] = Field(default={}, description="Files not all of whose tensors could be read, and why.")
    notices: tuple[Notice, ...] = ()

    @property
    def unreadable(self) -> bool:
        """Whether there are tensors whose values are not known because a file is damaged or can't be read."""
        return bool(self.faults)

    def sorted(self, key: str) -> CheckpointStats:
        """In another order, the largest first; tensors without that value come last. UsageError for an unknown key."""
        by = SORT_KEYS[check_sort_key(key)]
        if by is None:
            return self
        known = [t for t in self.tensors if by(t) is not None]
        ordered = sorted(known, key=by, reverse=key != "name")
        return self.model_copy(update={"tensors": (*ordered, *(t for t in self.tensors if by(t) is None))})


SORT_KEYS: dict[str, Callable[[TensorStats], Any] | None] = {
    "file": None,
    "name": lambda t: t.tensor,
    "size": lambda t: t.numel,
    "nonfinite": lambda t: t.non_finite,
    "min": lambda t: t.smallest,
    "max": lambda t: t.largest,
    "mean": lambda t: t.mean,
    "peak": lambda t: t.peak,
    "norm": lambda t: t.norm,
    "zeros": lambda t: t.zeros,
}
"""What tensors can be sorted by; `file` is the order that they lie in."""


def check_sort_key(key: str) -> str:
    """The key itself; UsageError where tensors can't be sorted by it."""
    if key not in SORT_KEYS:
        near = get_close_matches(key, SORT_KEYS, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"tensors can't be sorted by {key!r}{meant}; there are {', '.join(SORT_KEYS)}")
    return key

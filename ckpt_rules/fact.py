"""What a fact is: one typed thing that can be known about a checkpoint, and that layouts answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Fact(Generic[T]):
    """A question that a rule asks with `checkpoint[FACT]`, and that layouts answer.

    name:    in lower case with hyphens, `tokenizer`; no two installed facts share one
    of:      the class of the answer; any other answer is a fault of the layout
    what:    what the answer is, with its article: `the tokenizer`
    default: a function of the checkpoint that answers for layouts that do not; without one the fact is unavailable there

    Two facts are the same only if they are one object: define it once, in a module, and import it.
    """

    name: str
    of: type[T]
    what: str
    default: Callable[[Any], T] | None = None

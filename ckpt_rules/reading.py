"""How every byte is to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_rules.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Executor

Progress = Callable[[int, int], None]
"""Told, now and then and from any thread, how many bytes of how many were read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read every byte.

    jobs:     threads; None for one for each core
    executor: where to scan instead: it must be able to import this package and to open the files
    progress: told how far the reading is
    """

    jobs: int | None = None
    executor: Executor | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"the number of jobs is {self.jobs}; it must be at least 1")

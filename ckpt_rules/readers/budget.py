"""The account that readers keep of what the reading of one checkpoint takes."""

from __future__ import annotations

from typing import Any, Self

from ckpt_rules.limits import DEFAULT_LIMITS, MIB, Limits
from ckpt_rules.readers.damage import Damage


class LimitError(Damage):
    """More of something than is read."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__("limit", reason, offset)

    @classmethod
    def past(cls, limit: str, reason: str, offset: int | None = None) -> Self:
        """The error for one of the fields of `Limits`, which a ruleset can raise."""
        return cls(f"{reason} (a ruleset can raise this: `limits: {{{limit}: …}}`)", offset)


class Budget:
    """What is left of the memory that one checkpoint may take; every reader of its files draws on it.

    room:    bytes
    opcodes: what may still be run in the file at hand, the pickles inside of it included
    repeated: what a reader keeps of pickles that were read already, by what they are, for the files that hold the same
    """

    __slots__ = ("limits", "opcodes", "repeated", "room")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.room = limits.memory * MIB
        self.opcodes = limits.opcodes
        self.repeated: dict[object, list[Any]] = {}

    def charge(self, nbytes: int, what: str) -> None:
        """Draw on the budget; LimitError, and nothing drawn, where that is more than is left."""
        if nbytes > self.room:
            raise self.overdrawn(what)
        self.room -= nbytes

    def overdrawn(self, what: str) -> LimitError:
        """The error where something takes more memory than is left."""
        return LimitError.past("memory", f"reading {what} would exceed the {self.limits.memory:,} MiB memory limit")

    def check_size(self, nbytes: int, what: str) -> None:
        """LimitError where one structure is too large to be read as a whole."""
        most = self.limits.structure * MIB
        if nbytes > most:
            raise LimitError.past("structure", f"{what} has {nbytes:,} bytes, more than the {most:,} that are read")

"""What a pickle was found to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_rules.facts.tensors import GlobalRef, ReadProblem
from ckpt_rules.readers.pickle.enclosed import Enclosed


@dataclass(frozen=True, slots=True)
class Unpickled:
    """One pickle. What it asked for is kept where it broke; `value` is then None and `readable` False.

    end:      the byte behind its STOP, or where it broke
    ended:    whether it broke because its bytes are at an end
    enclosed: bytes in it that look loadable themselves
    refused:  why torch's weights-only loader does not take it, though other unpicklers do
    """

    value: object
    globals: tuple[GlobalRef, ...]
    protocol: int
    end: int
    readable: bool = True
    ended: bool = False
    problems: tuple[ReadProblem, ...] = ()
    enclosed: tuple[Enclosed, ...] = ()
    refused: ReadProblem | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a pickle was found to hold, and all of its file that this came from.

    root:   name of the archive, by which what it asks for is told
    stored: where each of its storages lies
    read:   offset and bytes of what was read of the storages
    """

    root: str
    result: Unpickled
    stored: Mapping[str, object]
    read: tuple[tuple[int, bytes], ...]

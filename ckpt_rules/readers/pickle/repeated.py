"""Pickles that ranks have in common: each writes the same one into a file of its own, and its value is built once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b

from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.pickle.machine import Unpickled

_LEAST_NBYTES, _MOST, _ALIKE = 16_384, 64, 4


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


class Pickle:
    """One pickle, while it is looked up or run."""

    def __init__(
        self, raw: bytes, root: str, byteorder: str, budget: Budget, read: Callable[[int, int], bytes]
    ) -> None:
        self._root, self._budget, self._source = root, budget, read
        self._key = (blake2b(raw).digest(), byteorder) if len(raw) >= _LEAST_NBYTES else None
        self._read: list[tuple[int, bytes]] = []

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file, which are remembered."""
        data = self._source(offset, nbytes)
        self._read.append((offset, data))
        return data

    def known(self, locate: Callable[[str], object]) -> Repeated | None:
        """What the same pickle held before, in a file with the same storages and bytes at the same places."""
        kept: Iterable[Repeated] = self._budget.repeated.get(self._key, ()) if self._key else ()
        for before in kept:
            storages = all(locate(key) == place for key, place in before.stored.items())
            if storages and all(self._source(at, len(data)) == data for at, data in before.read):
                return replace(before, root=self._root, result=_renamed(before, self._root))
        return None

    def keep(self, result: Unpickled, stored: Mapping[str, object]) -> None:
        """Remember it for the files to come, where nothing is wrong with it."""
        clean = result.readable and not result.problems and not result.enclosed and result.refused is None
        kept = self._budget.repeated.get(self._key, ())
        if self._key and clean and len(kept) < _ALIKE and (kept or len(self._budget.repeated) < _MOST):
            found = Repeated(self._root, result, stored, tuple(self._read))
            self._budget.repeated.setdefault(self._key, []).append(found)


def _renamed(before: Repeated, root: str) -> Unpickled:
    streams = (root + g.stream.removeprefix(before.root) for g in before.result.globals)
    globals_ = tuple(g._replace(stream=stream) for g, stream in zip(before.result.globals, streams, strict=True))
    return replace(before.result, globals=globals_)

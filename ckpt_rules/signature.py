"""What a layout is recognised by, as a table; how well it fits follows from what is there, by one rule for all layouts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from re import Pattern
from typing import TYPE_CHECKING

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.traits import Match

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

Find = Callable[["Checkpoint"], Iterable[str]]
_MOST_COUNTED = 9
_CERTAIN = 100


class Tells(IntEnum):
    """Who else may have written what a sign looks for. One sign of a kind outranks any number of a weaker kind."""

    WEIGHTS = 1
    """Anybody: weights in a common format. A directory that holds saves is not taken for one by these alone."""
    NAME = 10
    """Anybody who names things so: a file that can't be read, the directory itself."""
    MODEL = 25
    """Any trainer that exports a model: what `save_pretrained` writes, which also lies beside a training state."""
    SHARED = 40
    """One of several trainers that name a part of their state so: `optimizer.pt`, `scheduler.bin`."""
    STATE = 55
    """One of several trainers that keep all of their state in such a form."""
    OWN = 70
    """This trainer, or those that are built on it: see `Signature.extends`."""


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing to look for.

    find:  what is there, in the words of `inspect`; nothing where it is not there, or a file that it looks into can't be read
    tells: who may have written it
    most:  how many of the words are shown
    """

    find: Find
    tells: Tells = Tells.OWN
    most: int = 1

    def words(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """What is there, at most so many."""
        try:
            return tuple(islice(self.find(checkpoint), self.most))
        except FactUnavailable:
            return ()

    @classmethod
    def file(cls, *names: str | Pattern[str], tells: Tells = Tells.OWN, most: int = 1) -> Sign:
        """An entry of one of these names, of whatever kind, for what is damaged is a sign all the same.

        names: paths, or patterns of whole paths
        """

        def find(checkpoint: Checkpoint) -> Iterable[str]:
            listing = checkpoint.listing
            for name in names:
                if isinstance(name, str):
                    yield from (name,) if listing.get(name) is not None else ()
                else:
                    yield from (entry.path for entry in listing if name.fullmatch(entry.path))

        return cls(find, tells, most)

    @classmethod
    def keys(cls, *wanted: str, of: str, tells: Tells = Tells.OWN) -> Sign:
        """Keys of the dictionary in a torch or JSON file, all of them."""

        def find(checkpoint: Checkpoint) -> Iterable[str]:
            values = checkpoint.files.contents(of) if checkpoint.listing.get(of) is not None else None
            there = isinstance(values, Mapping) and all(key in values for key in wanted)
            return [f"'{key}' in {of}" for key in wanted] if there else []

        return cls(find, tells, len(wanted))

    @classmethod
    def named(cls, pattern: Pattern[str], words: str = "", tells: Tells = Tells.NAME) -> Sign:
        """The name of the checkpoint itself.

        words: how to say so; by default `the name last.ckpt`
        """

        def find(checkpoint: Checkpoint) -> Iterable[str]:
            own = own_name(checkpoint)
            return [words or f"the name {own}"] if pattern.fullmatch(own) else []

        return cls(find, tells)

    @classmethod
    def fits(cls, signatures: tuple[Signature, ...], most: int = 1) -> Sign:
        """What the signatures of another format find: a trainer that builds on it has its files as well."""

        def find(checkpoint: Checkpoint) -> Iterable[str]:
            found = best(signatures, checkpoint)
            return found.signs if found else ()

        return cls(find, most=most)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a directory of a layout must have, may have, and must not have.

    must:    all of these are there
    may:     each that is there adds to the certainty
    never:   none of these is there: for a look-alike that no layout reads. What another layout reads, its score decides
    least:   how many of `may` are there at least
    extends: signatures of the format that this trainer builds on: where one of them fits as well, this one outranks it

    The score is that of the strongest sign (`Tells`), and one more for each further sign; but at least one more than the score
    of what is extended.
    """

    must: tuple[Sign, ...] = ()
    may: tuple[Sign, ...] = ()
    never: tuple[Sign, ...] = ()
    least: int = 0
    extends: tuple[Signature, ...] = field(default=(), repr=False)

    @property
    def ceiling(self) -> int:
        """The highest score that it can give; one that extends another may reach any."""
        strongest = max((sign.tells for sign in (*self.must, *self.may)), default=0)
        return _CERTAIN if self.extends else strongest + _MOST_COUNTED

    def match(self, checkpoint: Checkpoint) -> Match | None:
        """How well a checkpoint fits; None where it does not. Nothing further is looked for once that is certain."""
        found: list[tuple[Sign, tuple[str, ...]]] = []
        for sign in self.must:
            words = sign.words(checkpoint)
            if not words:
                return None
            found.append((sign, words))
        if any(sign.words(checkpoint) for sign in self.never):
            return None
        optional = [(sign, words) for sign in self.may if (words := sign.words(checkpoint))]
        found += optional
        if not found or len(optional) < self.least:
            return None
        score = max(sign.tells for sign, _ in found) + min(len(found) - 1, _MOST_COUNTED)
        outranked = best(self.extends, checkpoint)
        return Match(
            max(score, outranked.score + 1 if outranked else 0),
            tuple(dict.fromkeys(word for _, words in found for word in words)),
        )


def best(signatures: Iterable[Signature], checkpoint: Checkpoint) -> Match | None:
    """The match with the highest score; of equals, the first."""
    found = [match for signature in signatures if (match := signature.match(checkpoint))]
    return max(found, key=lambda match: match.score, default=None)


def own_name(checkpoint: Checkpoint) -> str:
    """The last part of the checkpoint's path, `checkpoint-500`, whatever way the user wrote it."""
    return os.path.basename(os.path.abspath(checkpoint.path))

"""How the tensors of one architecture are named, written down briefly: what the tables of families are made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Config = Mapping[str, object]
Names = tuple[str, ...]

_BRACES = re.compile(r"\{([^{}]*)\}")


def names(text: str) -> Names:
    """The names in a text: `{q,k}_proj.weight` stands for two, `a|b` for one that may be spelt either way."""
    return tuple(name for word in text.split() for name in _expanded(word))


def _expanded(word: str) -> list[str]:
    braces = _BRACES.search(word)
    if braces is None:
        return [word]
    parts = (word[: braces.start()] + choice + word[braces.end() :] for choice in braces[1].split(","))
    return [name for part in parts for name in _expanded(part)]


def nothing_more(_config: Config, _layer: int | None) -> Names:
    """What most families have beside the names that every model of theirs has."""
    return ()


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of transformers, and the names by which its classes find their tensors.

    stem:      what the names of its classes start with
    prefix:    what stands before the names of the base model in a class with a head
    embedding: the input embedding, which a tied output head shares
    base:      the other names outside of layers
    stack:     what stands before the number of a layer
    layer:     names inside of each layer; `#` is the number of an expert
    heads:     by the end of a class's name, what it adds to the base model
    output:    those of the heads' names that hold the output embedding, which may be tied
    tied:      whether it is where the configuration does not say so
    count:     the configuration's keys for the number of layers
    experts:   its keys for the number of experts
    more:      names that only some configurations have, for a layer (its number) or outside of layers (None)
    spans:     what stands before the names of the base model in the class for question answering, where that differs
    renames:   patterns of names in memory, which a loader takes too, and their names on disk
    """

    stem: str
    prefix: str
    embedding: str
    base: Names
    stack: str
    layer: Names
    heads: Mapping[str, Names]
    output: str = "lm_head.weight"
    tied: bool = False
    count: Names = ("num_hidden_layers",)
    experts: Names = ()
    more: Callable[[Config, int | None], Names] = nothing_more
    spans: str = ""
    renames: Mapping[str, str] = field(default_factory=dict)


def says(config: Config, key: str, *, default: bool) -> bool:
    """A switch of the configuration; False for what is not a switch, for then nothing is known."""
    value = config.get(key, default)
    return value is True

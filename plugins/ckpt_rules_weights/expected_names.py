"""The names of the tensors that the class in config.json looks for when `from_pretrained` loads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from ckpt_rules import is_count
from ckpt_rules_weights.decoders import DECODERS
from ckpt_rules_weights.encoders import ENCODERS
from ckpt_rules_weights.family import Config, Family, Names

FAMILIES: Mapping[str, Family] = {**DECODERS, **ENCODERS}
"""Every family whose names are known, by `model_type`."""

_LEGACY = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
_BASE = "@"
EXPERT = "#"
"""What stands for the number of an expert."""
_MAX_LAYERS = 4096
_MAX_NAMES = 200_000
_SPANS = "ForQuestionAnswering"


class Wanted(NamedTuple):
    """One tensor that the class looks for, or one of each expert of a layer.

    names:   its name, and others by which a loader finds it too; `#` is the number of an expert
    kind:    its name with the numbers of layers and experts read as `*`
    layer:   the number of its layer; None outside of layers
    head:    whether it is not a part of the base model
    experts: how many experts have one; None where it is a single tensor
    """

    names: Names
    kind: str
    layer: int | None = None
    head: bool = False
    experts: int | None = None

    @property
    def tensors(self) -> int:
        """How many tensors it is."""
        return 1 if self.experts is None else self.experts

    def of_expert(self, expert: int) -> Wanted:
        """That of one expert."""
        return self._replace(names=tuple(n.replace(EXPERT, str(expert)) for n in self.names), experts=None)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a class looks for.

    cls:     the class, or that of the base model where config.json names none
    prefix:  what stands before the base model's names, and may be left out or put before any name
    renames: patterns of names in memory, and what they are on disk
    """

    cls: str
    wanted: tuple[Wanted, ...]
    prefix: str
    renames: Mapping[str, str]

    @property
    def tensors(self) -> int:
        """How many tensors it looks for."""
        return sum(w.tensors for w in self.wanted)

    def normalised(self, name: str) -> str:
        """A name in a file, spelt as on disk today."""
        if "LayerNorm." in name:
            for old, new in _LEGACY:
                name = name.replace(old, new)
        for pattern, new in self.renames.items():
            name = re.sub(pattern, new, name)
        return name

    def variants(self, wanted: Wanted) -> Iterator[str]:
        """The names by which a loader finds it: a prefix of the base model may be missing, or be there once more."""
        for name in wanted.names:
            yield name
            yield name.removeprefix(f"{self.prefix}.")
            yield f"{self.prefix}.{name}"


def expectation(config: Config) -> Expectation | None:
    """What the class that config.json names looks for; None where its family or class is not known.

    Without `architectures` it is what every class of the family looks for.
    """
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        return None
    named = config.get("architectures")
    if named is not None and named != [] and not (isinstance(named, list) and len(named) == 1):
        return None
    cls = named[0] if named else None
    end = cls.removeprefix(family.stem) if isinstance(cls, str) and cls.startswith(family.stem) else None
    if cls is not None and end not in family.heads:
        return None
    if end == _SPANS and family.spans:
        family = replace(family, prefix=family.spans)
    layers = next((config[key] for key in family.count if key in config), None)
    if not is_count(layers) or layers > _MAX_LAYERS:
        return None
    heads = family.heads[end] if end is not None and not _has_no_labels(config) else ()
    wanted = tuple(islice(_wanted(config, family, heads, int(layers)), _MAX_NAMES + 1))
    name = cls if isinstance(cls, str) else f"{family.stem}{'TextModel' if family.stem == 'Gemma3' else 'Model'}"
    found = Expectation(name, wanted, family.prefix, family.renames)
    return found if found.tensors <= _MAX_NAMES else None


def _has_no_labels(config: Config) -> bool:
    """Whether a class for classification has no head: it then is the base model."""
    return config.get("num_labels") == 0 or config.get("id2label") == {}


def _wanted(config: Config, family: Family, heads: Names, layers: int) -> Iterator[Wanted]:
    tied = config.get("tie_word_embeddings", family.tied) is not False
    shared = family.output if family.output in heads and tied else ""
    embedding = _prefixed(family, family.embedding)
    yield _outside("|".join(filter(None, (embedding, shared))))
    for name in (*family.base, *family.more(config, None)):
        yield _outside(_prefixed(family, name))
    for name in heads:
        if name.startswith(_BASE):
            yield _outside(_prefixed(family, name.removeprefix(_BASE)))
        elif name != shared:
            yield _outside(name, head=True)
    experts = _experts(config, family)
    for layer in range(layers):
        yield from _in_layer(config, family, layer, experts)


def _outside(name: str, *, head: bool = False) -> Wanted:
    names = tuple(name.split("|"))
    return Wanted(names, names[0], head=head)


def _in_layer(config: Config, family: Family, layer: int, experts: int | None) -> Iterator[Wanted]:
    before, above = f"{family.prefix}.{family.stack}.{layer}.", f"{family.prefix}.{family.stack}.*."
    for name in (*family.layer, *family.more(config, layer)):
        spelt = name.split("|")
        if EXPERT not in name:
            yield Wanted(tuple(before + s for s in spelt), above + spelt[0], layer)
        elif experts:
            kind = above + spelt[0].replace(EXPERT, "*")
            yield Wanted(tuple(before + s for s in spelt), kind, layer, experts=experts)


def _prefixed(family: Family, name: str) -> str:
    return "|".join(f"{family.prefix}.{part}" for part in name.split("|"))


def _experts(config: Config, family: Family) -> int | None:
    """How many experts a layer has; None where the configuration does not say so."""
    value = next((config[key] for key in family.experts if key in config), None)
    return int(value) if is_count(value) and value <= _MAX_LAYERS else None

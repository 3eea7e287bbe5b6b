"""Reads a ruleset and all that it extends into layers, in the order in which they apply."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ckpt_rules.errors import RulesetError, RulesetProblem
from ckpt_rules.ruleset.document import Node, parse_yaml
from ckpt_rules.ruleset.mistakes import Mark, Mistakes
from ckpt_rules.ruleset.model import RulesetFile
from ckpt_rules.ruleset.sources import UnknownSourceError, UnreadableTextError, find_ruleset, identity, read_text
from ckpt_rules.ruleset.wording import described, mistake_in_file

if TYPE_CHECKING:
    from ckpt_rules.plugins import Plugins

MAX_LAYERS = 200
_KEYS_WITH_ENTRIES = frozenset({"extends", "requires", "plugins", "select", "exclude", "rules", "limits", "ignore"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One file. `node` holds the places of what `content` says: same keys, same indices."""

    file: str
    node: Node
    content: RulesetFile

    def mark(self, *path: str | int) -> Mark:
        """Where a value stands: its key if it has one."""
        return self.node.nearest(path).key


@dataclass(frozen=True, slots=True)
class Loaded:
    """A ruleset with what it extends. The last layer is the file that the user names.

    whole: whether every file could be read, so that a rule which is not there is a mistake and no consequence
    """

    layers: tuple[Layer, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """A file on the way from the named one, and the line in which it extends the next."""

    path: str
    file: str
    line: int = 0


def load(path: Path, plugins: Plugins, mistakes: Mistakes) -> Loaded:
    """Read the file at `path` and all that it extends.

    Mistakes in files are added to `mistakes`; a `RulesetError` is raised at once if the file itself can't be opened.
    """
    loader = _Loader(plugins, mistakes)
    try:
        loader.load(path, ())
    except UnknownSourceError as error:
        raise RulesetError([RulesetProblem(str(path), 0, 0, str(error))]) from None
    return Loaded(tuple(loader.layers), loader.whole)


def _no_mapping(node: Node | None) -> str:
    if node is None or node.value is None:
        return "the file is empty; a ruleset says at least `extends: [default]`"
    return f"a ruleset is a mapping with keys such as extends and select, not {described(node.value)}"


class _Loader:
    def __init__(self, plugins: Plugins, mistakes: Mistakes) -> None:
        self.layers: list[Layer] = []
        self.whole = True
        self._plugins = plugins
        self._mistakes = mistakes
        self._read: dict[str, Layer | None] = {}

    def load(self, path: Path, chain: tuple[_Step, ...]) -> None:
        """Append the layers of one file: first what it extends, left to right, then itself."""
        real = identity(path)
        if real not in self._read:
            self._read[real] = self._layer(path)
        layer = self._read[real]
        if layer is None:
            self.whole = False
            return
        for index, name in enumerate(layer.content.extends):
            mark = layer.mark("extends", index)
            self._extend(layer, name, mark, (*chain, _Step(real, layer.file, mark.line)))
        self.layers.append(layer)

    def _extend(self, layer: Layer, name: str, mark: Mark, chain: tuple[_Step, ...]) -> None:
        try:
            path = find_ruleset(name, self._plugins, os.path.dirname(layer.file))
            if problem := self._endless(path, chain):
                self._mistakes.add(layer.file, mark, problem)
            else:
                self.load(path, chain)
        except UnknownSourceError as error:
            self.whole = False
            self._mistakes.add(layer.file, mark, str(error))

    def _endless(self, path: Path, chain: tuple[_Step, ...]) -> str | None:
        real = identity(path)
        start = next((i for i, step in enumerate(chain) if step.path == real), None)
        if start is not None:
            circle = " -> ".join(f"{s.file}:{s.line}" for s in chain[start:])
            return f"extends goes in a circle: {circle} -> {chain[start].file}"
        if len(self.layers) + len(chain) >= MAX_LAYERS:
            return f"this extends more than {MAX_LAYERS} rulesets, counting one that is reached twice as two"
        return None

    def _layer(self, path: Path) -> Layer | None:
        file = str(path)
        try:
            text = read_text(path)
        except UnreadableTextError as error:
            self._mistakes.add(file, error.mark, str(error))
            return None
        node = parse_yaml(text, self._mistakes, file)
        if node is None or not isinstance(node.value, dict):
            if file not in self._mistakes:
                self._mistakes.add(file, node.mark if node else None, _no_mapping(node))
            return None
        return Layer(file, node, _validated(file, node, self._mistakes))


def _validated(file: str, node: Node, mistakes: Mistakes) -> RulesetFile:
    """The content of a file. What is wrong is noted and cut out, so that the rest can still be looked at."""
    while True:
        try:
            return RulesetFile.model_validate(node.plain())
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        for error in errors:
            place = node.nearest(error["loc"])
            at_key = error["type"] == "extra_forbidden" or place.value is None
            mistakes.add(file, place.key if at_key else place.mark, mistake_in_file(error))
        # Entries of a list from its end, so that the indices of those before them stay right.
        for loc in sorted({_culprit(e["loc"]) for e in errors}, reverse=True):
            node.remove(*loc)


def _culprit(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The smallest part of a file that makes sense without the mistake: an entry of a list or of `rules`, or a key."""
    return loc[:2] if loc[0] in _KEYS_WITH_ENTRIES else loc[:1]

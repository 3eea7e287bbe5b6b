"""A YAML file as a tree of strings, lists and mappings in which every value knows its line and column.

The tree is built from the parser's events, with a stack instead of recursion: a file of a hundred thousand brackets is
one message, not a crash of the C library. Scalars stay strings, and whoever reads them gives the types: `off` is not
False, and `1e-3` is a number where one is expected. Anchors, aliases, tags and duplicate keys are refused: they make a
file mean something else than what one sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ckpt_rules.ruleset.mistakes import Mark, Mistakes

MAX_DEPTH = 16
_NULLS = frozenset({"", "~", "null"})
_HINTS = {
    "while scanning an alias": '`*` begins an alias in YAML, so put a glob in quotes: "*/missing"',
    "mapping values are not allowed": "either the line is indented wrongly, or a text that holds `: ` needs quotes",
    "cannot start any token": "put a text that begins with this character in quotes; indent with spaces, not tabs",
}


@dataclass(slots=True)
class Node:
    """One value of a YAML file.

    value: a string, None (`null`, `~` or nothing, unquoted), a list of nodes, or a mapping from key to node
    mark:  where it begins
    key:   where its key stands, if it belongs to a mapping; else the same as `mark`
    """

    value: str | list[Node] | dict[str, Node] | None
    mark: Mark
    key: Mark

    def plain(self) -> Any:
        """The value without places: str, None, list and dict."""
        if isinstance(self.value, list):
            return [n.plain() for n in self.value]
        if isinstance(self.value, dict):
            return {k: n.plain() for k, n in self.value.items()}
        return self.value

    def get(self, *path: str | int) -> Node | None:
        """The node that keys and indices lead to; None where there is no such thing."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node else None
        return node

    def nearest(self, path: Iterable[str | int]) -> Node:
        """The node that keys and indices lead to, or the last one on the way that exists."""
        node = self
        for step in path:
            child = node.child(step)
            if child is None:
                return node
            node = child
        return node

    def child(self, step: str | int) -> Node | None:
        """The entry of a mapping or list."""
        if isinstance(self.value, dict) and isinstance(step, str):
            return self.value.get(step)
        if isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None

    def remove(self, *path: str | int) -> None:
        """Cut the node out that keys and indices lead to."""
        *before, last = path
        parent = self.get(*before)
        if parent and parent.child(last):
            del parent.value[last]  # type: ignore[union-attr, arg-type]


def parse_yaml(text: str, mistakes: Mistakes, file: str) -> Node | None:
    """The tree of a YAML text; None where there is none. What is wrong with it is added to `mistakes`."""
    import yaml

    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    tree = _Tree(mistakes, file)
    try:
        for event in yaml.parse(text, Loader=loader):
            if not tree.take(event):
                return None
    except yaml.YAMLError as error:
        mistakes.add(file, _place(error, text), _syntax(error))
        return None
    return tree.root


class _Tree:
    """Grows from events; `open` holds the lists and mappings that have not ended, outermost first."""

    def __init__(self, mistakes: Mistakes, file: str) -> None:
        self.root: Node | None = None
        self._mistakes = mistakes
        self._file = file
        self._open: list[Node] = []
        self._keys: list[tuple[str, Mark] | None] = []
        self._documents = 0

    def take(self, event: Any) -> bool:
        """Put one event in its place; False where reading on is not valid."""
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        kind = type(event).__name__
        if kind in {"SequenceEndEvent", "MappingEndEvent"}:
            self._open.pop()
            self._keys.pop()
        elif kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                return self._stop(
                    mark, "a second document begins here; a ruleset is one document, so delete this `---`"
                )
        elif kind in {"ScalarEvent", "AliasEvent", "SequenceStartEvent", "MappingStartEvent"}:
            return self._value(event, kind, mark)
        return True

    def _value(self, event: Any, kind: str, mark: Mark) -> bool:
        self._refuse_magic(event, kind, mark)
        if self._open and isinstance(self._open[-1].value, dict) and self._keys[-1] is None:
            return self._key(event, kind, mark)
        node = self._node(event, kind, mark)
        self._attach(node)
        if isinstance(node.value, list | dict):
            self._open.append(node)
            self._keys.append(None)
            if len(self._open) > MAX_DEPTH:
                return self._stop(mark, f"this is nested {len(self._open)} levels deep; at most {MAX_DEPTH} are read")
        return True

    def _refuse_magic(self, event: Any, kind: str, mark: Mark) -> None:
        if kind == "AliasEvent":
            hint = "write the value out, or put a glob in quotes"
            self._mistakes.add(
                self._file, mark, f'the alias *{event.anchor} is refused; {hint}: "*{event.anchor}"', last=True
            )
        elif event.anchor is not None:
            self._mistakes.add(
                self._file, mark, f"the anchor &{event.anchor} is refused; write the value out each time"
            )
        elif event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._mistakes.add(self._file, mark, f"the tag {tag} is refused; types follow from the keys")

    def _key(self, event: Any, kind: str, mark: Mark) -> bool:
        if kind != "ScalarEvent":
            return self._stop(mark, "a key must be plain text; is a brace or a colon too many?")
        earlier = self._open[-1].child(event.value)
        if earlier:
            message = f"the key {event.value!r} is here a second time; it is in line {earlier.key.line} already"
            self._mistakes.add(self._file, mark, message)
        self._keys[-1] = (event.value, mark)
        return True

    @staticmethod
    def _node(event: Any, kind: str, mark: Mark) -> Node:
        if kind == "SequenceStartEvent":
            return Node([], mark, mark)
        if kind == "MappingStartEvent":
            return Node({}, mark, mark)
        if kind == "AliasEvent" or (not event.style and event.value in _NULLS):
            return Node(None, mark, mark)
        return Node(event.value, mark, mark)

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1].value
        key = self._keys[-1]
        if isinstance(parent, list):
            parent.append(node)
        elif isinstance(parent, dict) and key:
            node.key = key[1]
            parent[key[0]] = node
            self._keys[-1] = None

    def _stop(self, mark: Mark, message: str) -> bool:
        self._mistakes.add(self._file, mark, message)
        return False


def _place(error: Any, text: str) -> Mark:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        return Mark(mark.line + 1, mark.column + 1)
    # A control character: libyaml counts bytes up to it, the Python parser counts characters.
    position = getattr(error, "position", 0)
    before = text[:position] if getattr(error, "encoding", "") == "unicode" else _first_bytes(text, position)
    return Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _first_bytes(text: str, count: int) -> str:
    return text.encode()[:count].decode(errors="ignore")


def _syntax(error: Any) -> str:
    """What the YAML parser says, in one sentence, with a hint where its words are known to puzzle people."""
    said = list(_words(error))
    hint = next((h for words, h in _HINTS.items() if any(words in s for s in said)), None)
    return f"this is not YAML: {' '.join(said)}" + (f"; {hint}" if hint else "")


def _words(error: Any) -> Iterator[str]:
    problem, context, mark = (getattr(error, n, None) for n in ("problem", "context", "context_mark"))
    yield problem or getattr(error, "reason", None) or "it can't be read"
    if context:
        yield f"{context} that begins in line {mark.line + 1}" if mark else context

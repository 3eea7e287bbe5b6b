"""Puts layers on top of each other: for every leaf the last writer wins, and selections add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ckpt_rules.errors import UsageError
from ckpt_rules.finding import Severity
from ckpt_rules.report import Notice
from ckpt_rules.ruleset.document import Node
from ckpt_rules.ruleset.installed import Installed, Match, is_pattern
from ckpt_rules.ruleset.loading import Layer
from ckpt_rules.ruleset.mistakes import Mark, Mistakes
from ckpt_rules.ruleset.model import Level
from ckpt_rules.ruleset.resolved import Origin


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in one of the files."""

    file: str
    mark: Mark

    @property
    def origin(self) -> Origin:
        """File and line."""
        return Origin(self.file, self.mark.line)


@dataclass(slots=True)
class Choice:
    """What the layers so far say about one rule.

    selected_by: who selected it last; None while it is not selected
    excluded_by: who left it out last; None while it is selected, or was never named
    written:     the last entry under `rules`
    decided:     who wrote the severity and each option
    """

    selected_by: Spot | None = None
    excluded_by: Spot | None = None
    written: Spot | None = None
    severity: Severity | None = None
    options: dict[str, Node] = field(default_factory=dict)
    decided: dict[str, Spot] = field(default_factory=dict)


class Merge:
    """Applies layers one by one. Names that nobody has are noted as mistakes, former ids as notices."""

    def __init__(self, installed: Installed, mistakes: Mistakes) -> None:
        self.choices: dict[str, Choice] = {}
        self.installed = installed
        self._mistakes = mistakes
        self._notices: dict[str, None] = {}

    @property
    def notices(self) -> list[Notice]:
        """What the user should know, though it is not a mistake."""
        return [Notice(severity=Severity.WARNING, message=m) for m in self._notices]

    def notice(self, message: str) -> None:
        """Tell the user something, once."""
        self._notices[message] = None

    def apply(self, layer: Layer) -> None:
        """Put a layer on top: its `select`, then its `exclude`, then its `rules`."""
        for spot, rule_id in self._matches(layer, "select", layer.content.select):
            choice = self._choice(rule_id)
            choice.selected_by, choice.excluded_by = spot, None
        for spot, rule_id in self._matches(layer, "exclude", layer.content.exclude):
            choice = self._choice(rule_id)
            choice.selected_by, choice.excluded_by = None, spot
        for name, rule_id, spot in self._rules(layer):
            self._write(self._choice(rule_id), layer, name, spot)

    def _rules(self, layer: Layer) -> Iterator[tuple[str, str, Spot]]:
        """The entries of `rules`: as what each is written, its present id, and its place."""
        seen: dict[str, str] = {}
        for name in layer.content.rules:
            spot = Spot(layer.file, layer.mark("rules", name))
            present = self.installed.rule(name)
            if is_pattern(name):
                self._mistakes.add(spot.file, spot.mark, self.installed.unknown_rule(name))
            elif present is None:
                checks = layer.content.rules[name].severity is not Level.OFF
                self._unknown(spot, self.installed.unknown_rule(name), name, checks=checks)
            elif present in seen:
                self._mistakes.add(
                    spot.file, spot.mark, f"{name!r} and {seen[present]!r} are one rule; keep one of them"
                )
            else:
                seen[present] = name
                self.renamed(spot.origin, {} if present == name else {name: present})
                yield name, present, spot

    def _matches(self, layer: Layer, key: str, patterns: list[str]) -> Iterator[tuple[Spot, str]]:
        for index, pattern in enumerate(patterns):
            spot = Spot(layer.file, layer.mark(key, index))
            yield from ((spot, rule_id) for rule_id in self.find(spot, pattern, checks=key == "select").ids)

    def find(self, spot: Spot, pattern: str, *, checks: bool = False) -> Match:
        """The rules that a pattern in a file stands for; `checks` where they are meant to run."""
        match = self.installed.find(pattern)
        self.renamed(spot.origin, match.renamed)
        if not match.ids:
            self._unknown(spot, self.installed.unknown_pattern(pattern), pattern, checks=checks)
        return match

    def find_asked(self, flag: Origin, pattern: str) -> tuple[str, ...]:
        """The rules that a pattern in the call stands for; a `UsageError` where there are none."""
        match = self.installed.find(pattern)
        self.renamed(flag, match.renamed)
        if not match.ids:
            raise UsageError(f"{flag}: {self.installed.unknown_pattern(pattern)}")
        return match.ids

    def _unknown(self, spot: Spot, message: str, name: str, *, checks: bool) -> None:
        """A name that finds nothing is a mistake, unless a plugin that did not come along may have brought it.

        Then the user is told which checks are lost; where none are, there is nothing to tell.
        """
        if not self.installed.may_be_absent(name):
            self._mistakes.add(spot.file, spot.mark, message)
        elif checks:
            self.notice(f"{spot.origin}: {message}")

    def renamed(self, origin: Origin, renamed: Mapping[str, str]) -> None:
        """Say that rules are called otherwise today."""
        for old, new in renamed.items():
            self.notice(f"{origin}: {old!r} is now called {new!r}; write that instead")

    def _choice(self, rule_id: str) -> Choice:
        return self.choices.setdefault(rule_id, Choice())

    @staticmethod
    def _write(choice: Choice, layer: Layer, name: str, spot: Spot) -> None:
        entry = layer.content.rules[name]
        choice.written = spot
        choice.selected_by = spot
        if entry.severity is Level.OFF:
            choice.selected_by = choice.severity = None
            choice.decided.pop("severity", None)
        elif entry.severity:
            choice.severity = Severity(entry.severity)
            choice.decided["severity"] = Spot(layer.file, layer.mark("rules", name, "severity"))
        for option in entry.options:
            node = layer.node.get("rules", name, "options", option)
            if node:
                choice.options[option] = node
                choice.decided[option] = Spot(layer.file, node.key)

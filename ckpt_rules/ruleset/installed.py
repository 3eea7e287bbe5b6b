"""The installed rules as a ruleset speaks of them: by id, former id, glob and tag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate

from ckpt_rules.plugins import Plugins
from ckpt_rules.rule import Rule
from ckpt_rules.ruleset.mistakes import listed, nearest, quoted, suggestion

_WILD = re.compile(r"[*?\[]")
TAG = "tag:"
_ALL = "'ckpt-rules rules' lists them all"


@dataclass(frozen=True, slots=True)
class Match:
    """What a pattern means.

    ids:     the rules that it stands for; empty where there is none
    renamed: `former id -> id` where it matched by a name that a rule used to have
    """

    ids: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)


def is_pattern(name: str) -> bool:
    """Whether a name is a tag or a glob, and so no rule's id."""
    return name.startswith(TAG) or bool(_WILD.search(name))


class Installed:
    """Finds rules by what a user writes, and says what was probably meant where nothing is found.

    `complete` is False where a file that may bring rules, or name one that does, could not be read.
    """

    def __init__(self, plugins: Plugins, *, complete: bool = True) -> None:
        self.plugins = plugins
        self._complete = complete
        self.rules: Mapping[str, type[Rule]] = {i: rule for i, (rule, _) in plugins.rules.items()}
        self._families = {i.partition("/")[0] for i in self.rules}
        self._tags = {t for rule in self.rules.values() for t in rule.tags}

    def find(self, pattern: str) -> Match:
        """The rules that an id, a former id, a glob of ids or `tag:…` stands for."""
        if pattern in self.rules:
            return Match((pattern,))
        if pattern.startswith(TAG):
            tag = pattern.removeprefix(TAG)
            return Match(tuple(i for i, rule in self.rules.items() if tag in rule.tags))
        fits = re.compile(translate(pattern)).match
        ids = tuple(i for i in self.rules if fits(i))
        if ids:
            return Match(ids)
        renamed = {old: new for old, new in self.plugins.former_ids.items() if fits(old)}
        return Match(tuple(sorted(set(renamed.values()))), renamed)

    def rule(self, rule_id: str) -> str | None:
        """The present id of a rule that is written with its id or a former one; None where there is no such rule."""
        return rule_id if rule_id in self.rules else self.plugins.former_ids.get(rule_id)

    def unknown_pattern(self, pattern: str) -> str:
        """Why a pattern finds nothing, and which one was probably meant."""
        if pattern.startswith(TAG):
            tags = [TAG + t for t in sorted(self._tags)]
            there = f"there are {listed(tags)}" if tags else "there are no tags"
            found = quoted(pattern.removeprefix(TAG))
            return f"no rule has the tag {found}{suggestion(pattern, tags)}; {there}{self._absent()}"
        if _WILD.search(pattern):
            globs = [f"{f}/*" for f in sorted(self._families)]
            near = suggestion(pattern, [*globs, *self.rules])
            return f"no rule matches {quoted(pattern)}{near}; {_ALL}{self._absent()}"
        return f"there is no rule {quoted(pattern)}{self._meant(pattern)}; {_ALL}{self._absent()}"

    def unknown_rule(self, rule_id: str) -> str:
        """Why an entry of `rules` names no rule, and which one was probably meant."""
        if is_pattern(rule_id):
            return f"{quoted(rule_id)} is not an id of a rule; globs and tags belong under select or exclude"
        same = [i for i in self.rules if i.partition("/")[2] == rule_id]
        near = f" (did you mean {listed(map(repr, same), 'or')}?)" if same else suggestion(rule_id, self.rules)
        return f"there is no rule {quoted(rule_id)}{near}; {_ALL}{self._absent()}"

    @property
    def partial(self) -> bool:
        """Whether a plugin is left out or broken, or a file that may bring rules could not be read."""
        return not self._complete or bool(self.plugins.disabled or self.plugins.broken)

    def may_be_absent(self, name: str) -> bool:
        """Whether the rule that a name means may belong to a plugin that did not come along.

        A family belongs to one plugin: where the family is there, its rules are.
        """
        return self.partial and name.partition("/")[0] not in self._families

    def _absent(self) -> str:
        absent = [f"{p.name}, which could not be loaded," for p in self.plugins.broken]
        absent += [f"{name}, which is left out of this run," for name in sorted(self.plugins.disabled)]
        return f"; the plugin {listed(absent, 'or')} may have brought it" if absent else ""

    def _meant(self, pattern: str) -> str:
        """What an id was meant to be; for a word without a slash, a defect, tag or family of that name."""
        if "/" in pattern:
            return suggestion(pattern, self.rules)
        meant = {i.partition("/")[2]: i for i in self.rules}
        meant |= {t: TAG + t for t in self._tags} | {f: f"{f}/*" for f in self._families}
        near = nearest(pattern, meant)
        return f" (did you mean {meant[near]!r}?)" if near else ""

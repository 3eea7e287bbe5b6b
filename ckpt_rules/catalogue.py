"""The rules as their users read them: one page for each, the table of all, and both in Markdown for the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.errors import PydanticUserError

from ckpt_rules.finding import Severity, Value
from ckpt_rules.plugin import Plugin
from ckpt_rules.plugins import Plugins, installed_plugins
from ckpt_rules.rule import HEADINGS, Reads, Rule

OURS = "ckpt-rules"
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_ABOUT = (
    "Generated from the rules themselves; `ckpt-rules rule ID` prints the same page. The severity is the default: a "
    "[ruleset](rulesets.md) may set another, and options."
)
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OptionInfo(_Model):
    """One option of a rule."""

    name: str
    kind: str = Field(description="What it may be, in words.")
    default: Value = Field(description="Its default; null too where it has none.")
    required: bool
    description: str


class RuleInfo(_Model):
    """A rule's page."""

    id: str
    plugin: str
    distribution: str
    severity: Severity = Field(description="The default; a ruleset may set another.")
    tags: tuple[str, ...]
    reads: Reads = Field(description="What its facts cost: names and sizes, the headers of files, or every byte.")
    applies_to: tuple[str, ...] = Field(description="Names of the layouts that it is for; empty for all.")
    former_ids: tuple[str, ...]
    summary: str
    sections: dict[str, str] = Field(description="Markdown below each heading of the page.")
    options: tuple[OptionInfo, ...]

    @property
    def family(self) -> str:
        """The part of the id before the slash."""
        return self.id.partition("/")[0]


def rule_info(rule: type[Rule], plugin: Plugin) -> RuleInfo:
    """The page of a rule class."""
    page = rule.page()
    return RuleInfo(
        id=rule.id,
        plugin=plugin.name,
        distribution=plugin.distribution,
        severity=rule.severity,
        tags=tuple(sorted(rule.tags)),
        reads=rule.reads,
        applies_to=tuple(sorted(rule.applies_to)),
        former_ids=tuple(rule.former_ids),
        summary=page.summary,
        sections={h: page.sections[h] for h in HEADINGS},
        options=tuple(_options(rule)),
    )


def rule_infos(plugins: Plugins, ids: Iterable[str] | None = None) -> list[RuleInfo]:
    """The pages of these rules, or of all, sorted by id."""
    return [rule_info(*plugins.rules[i]) for i in sorted(plugins.rules if ids is None else ids)]


def _options(rule: type[Rule]) -> Iterator[OptionInfo]:
    schema: dict[str, Any] = {}
    if rule.model_fields:
        try:
            schema = rule.model_json_schema()
        except PydanticUserError:  # an option of a type that JSON Schema has no word for
            schema = {}
    for name, field in rule.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
        yield OptionInfo(
            name=name,
            kind=_kind(schema.get("properties", {}).get(name, {}), schema.get("$defs", {})),
            default=default,
            required=field.is_required(),
            description=field.description or "",
        )


def _kind(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A JSON Schema in words: `whole number, at least 0`."""
    if "$ref" in schema:
        return _kind(defs.get(schema["$ref"].rpartition("/")[2], {}), defs)
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{v}`" for v in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(_kind(s, defs) for s in schema["anyOf"])
    kind = schema.get("type")
    if kind == "array":
        inner = schema.get("items") or {}
        return f"list of {_kind(inner, defs)}" if inner else "list"
    bounds = [f", {words} {schema[key]:,}" for key, words in _BOUNDS.items() if key in schema]
    return _KINDS.get(str(kind), "mapping" if kind == "object" else "any value") + "".join(bounds)


def rule_page(rule: RuleInfo, level: int = 1) -> str:
    """One rule in Markdown; its heading is of `level`, those of its sections one below."""
    hashes = "#" * level
    facts = [f"Severity: **{rule.severity}**", f"plugin: `{rule.plugin}`", f"reads: {rule.reads.value}"]
    facts += [f"layouts: {', '.join(f'`{n}`' for n in rule.applies_to)}"] if rule.applies_to else []
    facts += [f"tags: {', '.join(f'`{t}`' for t in rule.tags)}"] if rule.tags else []
    facts += [f"formerly: {', '.join(f'`{i}`' for i in rule.former_ids)}"] if rule.former_ids else []
    parts = [f"{hashes} {rule.id}", rule.summary, f"{'; '.join(facts)}."]
    parts += [f"{hashes}# {heading}\n\n{text}" for heading, text in rule.sections.items()]
    if rule.options:
        parts.append(f"{hashes}# Options\n\n{_options_table(rule.options)}")
    return "\n\n".join(parts) + "\n"


def _options_table(options: Iterable[OptionInfo]) -> str:
    rows = [(f"`{o.name}`", o.kind, option_default(o), o.description) for o in options]
    return _table(("option", "value", "default", "meaning"), rows)


def option_default(option: OptionInfo) -> str:
    """The default as it would be written in a ruleset."""
    if option.required:
        return "must be given"
    if option.default is None or isinstance(option.default, bool):
        return {None: "null", True: "true", False: "false"}[option.default]
    if isinstance(option.default, list | tuple):
        return f"[{', '.join(map(str, option.default))}]"
    return str(option.default)


def rules_table(page: str, plugins: Plugins | None = None) -> str:
    """The built-in rules as one Markdown table, each linked to its heading in `page`."""
    rows = [(f"[{r.id}]({page}#{_anchor(r.id)})", str(r.severity), r.summary) for r in _ours(plugins)]
    return _table(("rule", "severity", "what it finds"), rows) + "\n"


def rules_page(plugins: Plugins | None = None) -> str:
    """docs/rules.md: every built-in rule, by family."""
    rules = _ours(plugins)
    parts = ["# The rules", _ABOUT, rules_table("", plugins).strip()]
    for family, members in groupby(rules, key=lambda r: r.family):
        parts.append(f"## {family}/")
        parts += [rule_page(rule, 3).strip() for rule in members]
    return "\n\n".join(parts) + "\n"


def _ours(plugins: Plugins | None) -> list[RuleInfo]:
    return [r for r in rule_infos(plugins or installed_plugins()) if plugins or r.distribution == OURS]


def _anchor(heading: str) -> str:
    """The fragment under which GitHub shows a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), ["---"] * len(list(head)), *([c.replace("|", r"\|") for c in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)

"""The JSON Schema of a ruleset file, from the models and what is installed: editors complete and check with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from ckpt_rules.ruleset.installed import TAG, Installed
from ckpt_rules.ruleset.model import IgnoreEntry, Level, RuleEntry, RulesetFile
from ckpt_rules.ruleset.sources import builtin_rulesets

if TYPE_CHECKING:
    from pydantic_core import core_schema

    from ckpt_rules.plugins import Plugins
    from ckpt_rules.rule import Rule

Schema = dict[str, Any]

_GLOB = {"type": "string", "pattern": r"[*?\[]"}
_PATH = {"type": "string", "pattern": r"/|\.[yY][aA]?[mM][lL]$"}


class _Generate(GenerateJsonSchema):
    """Leaves out what says nothing, and takes any value where an option's type has no JSON Schema."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        return {k: v for k, v in super().default_schema(schema).items() if (k, v) != ("default", None)}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def ruleset_schema(plugins: Plugins) -> Schema:
    """JSON Schema (draft 2020-12) of a ruleset file that is written for these plugins."""
    installed = Installed(plugins)
    models: list[type[BaseModel]] = [RulesetFile, *installed.rules.values()]
    references, merged = models_json_schema([(m, "validation") for m in models], schema_generator=_Generate)
    names = {model: reference["$ref"].rpartition("/")[2] for (model, _), reference in references.items()}
    definitions: Schema = merged["$defs"]
    for rule in installed.rules.values():
        definitions[names[rule]]["description"] = f"Options of {rule.id}."
    root: Schema
    root, entry = definitions.pop(names[RulesetFile]), definitions.pop(RuleEntry.__name__)
    _name_patterns(root["properties"], installed)
    _name_rules(definitions[IgnoreEntry.__name__]["properties"], installed)
    root["properties"]["extends"]["items"] = {"anyOf": [{"enum": [*builtin_rulesets(), *plugins.rulesets]}, _PATH]}
    root["properties"]["plugins"]["items"] = {"type": "string", "pattern": r"\.py$"}
    root["properties"]["rules"] |= {
        "properties": {i: _rule(rule, names[rule], entry) for i, rule in installed.rules.items()},
        "additionalProperties": False,
    }
    return root | {"title": "Ruleset of ckpt-rules", "$defs": definitions}


def _name_patterns(keys: Schema, installed: Installed) -> None:
    """Say what `select` and `exclude` can name."""
    globs = sorted({f"{i.partition('/')[0]}/*" for i in installed.rules})
    tags = sorted({TAG + t for rule in installed.rules.values() for t in rule.tags})
    for key in ("select", "exclude"):
        keys[key]["items"] = {"anyOf": [{"enum": [*globs, *tags, *installed.rules]}, _GLOB]}


def _name_rules(keys: Schema, installed: Installed) -> None:
    """Say what an ignore can name, and how its last day is written."""
    keys["rule"] = {"description": keys["rule"]["description"], "anyOf": [{"enum": [*installed.rules]}, _GLOB]}
    keys["expires"]["pattern"] = r"^\d{4}-\d{2}-\d{2}$"


def _rule(rule: type[Rule], options: str, entry: Schema) -> Schema:
    """The short and the long form of one entry of `rules`."""
    keys = entry["properties"] | {"options": {"$ref": f"#/$defs/{options}"}}
    short = {"$ref": f"#/$defs/{Level.__name__}"}
    return {"description": rule.page().summary, "anyOf": [short, entry | {"properties": keys}]}

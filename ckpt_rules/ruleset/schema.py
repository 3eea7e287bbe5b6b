"""The JSON Schema of a ruleset file, from the models and what is installed: editors complete and check with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

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

    def emit_warning(self, kind: Any, detail: str) -> None:
        """A default that JSON can't hold is left out silently."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:
        return {}


def ruleset_schema(plugins: Plugins) -> Schema:
    """JSON Schema (draft 2020-12) of a ruleset file that is written for these plugins."""
    installed = Installed(plugins)
    root = RulesetFile.model_json_schema(schema_generator=_Generate)
    definitions = root["$defs"]
    entry, ignore = definitions.pop(RuleEntry.__name__), definitions[IgnoreEntry.__name__]["properties"]
    _refuse_null(entry["properties"])
    _refuse_null(ignore)
    _name_patterns(root["properties"], installed)
    _name_rules(ignore, installed)
    root["properties"]["extends"]["items"] = {"anyOf": [{"enum": [*builtin_rulesets(), *plugins.rulesets]}, _PATH]}
    root["properties"]["plugins"]["items"] = {"type": "string", "pattern": r"\.py$"}
    references, options = _options(installed)
    root["properties"]["rules"] |= {
        "properties": {i: _rule(rule, references[i], entry) for i, rule in installed.rules.items()},
        "additionalProperties": False,
    }
    return root | {"title": "Ruleset of ckpt-rules", "$defs": definitions | {"options": options}}


def _options(installed: Installed) -> tuple[dict[str, Schema], Schema]:
    """A reference to the schema of each rule's options, by id, and these schemas."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(rule, "validation") for rule in installed.rules.values()]
    template = "#/$defs/options/{model}"
    found, merged = models_json_schema(models, schema_generator=_Generate, ref_template=template)
    schemas: Schema = merged.get("$defs", {})
    for (rule, _), reference in found.items():
        schemas[reference["$ref"].rpartition("/")[2]]["description"] = f"Options of {cast('type[Rule]', rule).id}."
    return {i: found[rule, "validation"] for i, rule in installed.rules.items()}, schemas


def _refuse_null(keys: Schema) -> None:
    """A key may be left out, but not written without a value; the models say so with a validator."""
    for key in keys.values():
        key.update(key.pop("anyOf", [{}])[0])


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


def _rule(rule: type[Rule], options: Schema, entry: Schema) -> Schema:
    """The short and the long form of one entry of `rules`."""
    keys = entry["properties"] | {"options": options}
    short = {"$ref": f"#/$defs/{Level.__name__}"}
    return {"description": rule.page().summary, "anyOf": [short, entry | {"properties": keys}]}

"""Says in our words what pydantic found wrong with a value of a ruleset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ckpt_rules.limits import Limits
from ckpt_rules.ruleset.mistakes import listed, quoted, suggestion
from ckpt_rules.ruleset.model import IgnoreEntry, Level, RuleEntry, RulesetFile

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LISTS = {
    "extends": "[default]",
    "requires": '["ckpt-rules-acme>=1.2"]',
    "plugins": "[./our_rules.py]",
    "select": '["files/*"]',
    "exclude": '["scaler/*"]',
    "ignore": "[{rule: rng/missing, reason: saved before we kept RNG state}]",
}
_LEVELS = [level.value for level in Level]
# What pydantic calls the types that a YAML file can hold.
_TYPES = {
    "valid tuple": "list",
    "valid list": "list",
    "valid set": "list",
    "valid frozenset": "list",
    "valid dictionary": "mapping",
    "valid number": "number",
    "a valid integer": "an integer",
    "a valid string": "text",
    "a valid boolean": "true or false",
}
_SECTIONS: dict[str, type[BaseModel]] = {"rules": RuleEntry, "ignore": IgnoreEntry, "limits": Limits}
_OWNERS = {"rules": "a rule", "ignore": "an ignore", "limits": "a mapping of limits"}


def mistake_in_file(error: ErrorDetails) -> str:
    """One sentence about a key or value of the file."""
    loc, kind = error["loc"], error["type"]
    name = _name(loc)
    if kind == "extra_forbidden":
        return _unknown_key(loc)
    if kind == "missing":
        why = ": say why these findings are acceptable" if name == "reason" else ""
        return f"{name} is missing{why}"
    if error["input"] is None:
        return f"{name} has no value; {_expected(loc, kind)} is expected, or leave it out"
    if kind == "enum":
        found = str(error["input"])
        return f"unknown severity {quoted(found)}{suggestion(found, _LEVELS)}; there are {listed(_LEVELS)}"
    if kind == "string_too_short":
        return f"{name} is empty; {_expected(loc, kind)} is expected"
    return f"{name} is {described(error['input'])}; {_expected(loc, kind)} is expected"


def _name(loc: tuple[int | str, ...]) -> str:
    *before, last = loc
    if isinstance(last, int):
        return "an entry of ignore" if before == ["ignore"] else f"an entry of {before[-1]}"
    return last


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = RulesetFile if len(loc) == 1 else _SECTIONS[str(loc[0])]
    key, known = str(loc[-1]), list(model.model_fields)
    where = "a ruleset" if len(loc) == 1 else _OWNERS[str(loc[0])]
    return f"unknown key {quoted(key)}{suggestion(key, known)}; {where} has {listed(known)}"


def _expected(loc: tuple[int | str, ...], kind: str) -> str:
    last = loc[-1]
    if last == "strict":
        return "true or false"
    if loc[0] == "limits":
        return _limit(str(last)) if len(loc) > 1 else "a mapping such as {memory: 400}"
    if last == "expires":
        return "a day such as 2027-06-30"
    if isinstance(last, str) and len(loc) == 1 and last in _LISTS:
        return f"a list such as {_LISTS[last]}"
    if last == "severity":
        return listed(_LEVELS, "or")
    if loc[0] == "rules" and len(loc) == 2:
        return f"{listed(_LEVELS, 'or')}, or a mapping with severity and options"
    if last == "options":
        return "a mapping of options"
    if last == "rules":
        return "a mapping from rule ids"
    return "a mapping with rule and reason" if kind == "model_type" else "text"


def _limit(name: str) -> str:
    """What a limit may be."""
    if Limits.model_fields[name].annotation is bool:
        return "true or false"
    bounds = {type(b).__name__: b for b in Limits.model_fields[name].metadata}
    top = f" to {bounds['Le'].le:,}" if "Le" in bounds else " or more"
    return f"a whole number, {bounds['Ge'].ge:,}{top}"


def described(value: Any) -> str:
    """A value as a message shows it: strings in quotes, everything else by its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else quoted(str(value))


def mistake_in_option(rule: str, error: ErrorDetails, options: Iterable[str]) -> str:
    """One sentence about an option of a rule, or about its options as a whole."""
    loc, kind = error["loc"], error["type"]
    if kind == "extra_forbidden" and len(loc) == 1:
        return unknown_option(rule, str(loc[0]), options)
    said = _without_prefix(error["msg"])
    if not loc:
        return f"the options of {rule} don't fit together: {said}"
    name = f"the option {_dotted(loc)} of {rule}"
    if kind == "missing":
        return f"{name} is missing; it has no default, so set it under rules"
    if said.startswith("Input "):
        return f"{name} {_in_yaml(said)}, not {described(error['input'])}"
    return f"{name} is {described(error['input'])}: {said}"


def unknown_option(rule: str, option: str, options: Iterable[str]) -> str:
    """An option that the rule does not have."""
    known = list(options)
    has = f"it has {listed(known)}" if known else "it takes none"
    return f"{rule} has no option {quoted(option)}{suggestion(option, known)}; {has}"


def _without_prefix(message: str) -> str:
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    return message


def _in_yaml(said: str) -> str:
    said = said.removeprefix("Input ").partition(", unable to")[0]
    for type_name, ours in _TYPES.items():
        said = said.replace(type_name, ours)
    return said


def _dotted(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).removeprefix(".")

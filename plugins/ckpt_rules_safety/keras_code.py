"""Code in the configuration of a Keras model: Lambda layers, and classes of modules that are not Keras's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules_safety.unsafe_globals import danger

_LAMBDA = "a Lambda layer is a Python function, which Keras runs with safe_mode=False"
_MODULE = "Keras before 3.9 imports it, and it"
_LEVELS = 60


def named_by_keras(config: Mapping[object, object]) -> Iterator[tuple[str, str, str]]:
    """Key, code and what becomes of it; nothing in a configuration that is not Keras's."""
    if "class_name" in config and "config" in config:
        yield from _walk(config, "", _LEVELS)


def _walk(value: object, key: str, levels: int) -> Iterator[tuple[str, str, str]]:
    if not levels:
        return
    if isinstance(value, dict):
        yield from _object(value, key)
        for name, part in value.items():
            yield from _walk(part, f"{key}.{name}" if key else str(name), levels - 1)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _walk(part, f"{key}.{number}" if key else str(number), levels - 1)


def _object(value: Mapping[object, object], key: str) -> Iterator[tuple[str, str, str]]:
    name, module, config = value.get("class_name"), value.get("module"), value.get("config")
    above = f"{key}." if key else ""
    if name in ("Lambda", "__lambda__"):
        if name == "__lambda__" or not _function_is_an_object(config):
            yield f"{above}class_name", str(name), _LAMBDA
    elif isinstance(module, str) and isinstance(name, str):
        called = config if name == "function" and isinstance(config, str) else name
        if what := danger(module, called):
            yield f"{above}module", f"{module}.{called}", f"{_MODULE} {what}"


def _function_is_an_object(config: object) -> bool:
    """Whether a Lambda layer keeps its function as an object of its own, which is found by itself."""
    function = config.get("function") if isinstance(config, dict) else None
    return isinstance(function, dict) and function.get("class_name") == "__lambda__"

"""Code that YAML files name by tags of Python's, or as the target of an object to be made."""

from __future__ import annotations

from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable
from ckpt_rules_safety.named_code import NamedCode, harm
from ckpt_rules_safety.unsafe_globals import REACHES

_SUFFIXES = frozenset({".yaml", ".yml"})
_PYTHON = "tag:yaml.org,2002:python/"
_HYPER = ("!new:", "!name:", "!apply:", "!applyref:")
_KEYS = frozenset({"_target_", "class_path"})
# Known from pickles, where what they are given is looked at; no YAML file that a library writes has them as a tag.
_REACHING = frozenset({"getattr", "type", "builtins.getattr", "builtins.type"})
_MOST_NBYTES, _MOST_EVENTS = 1 << 20, 100_000
_TAG = "an unsafe YAML loader imports it, and it"
_TARGET = "instantiating this object imports and calls it, and it"


def named_in_yaml(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """Every tag and target that names a function known to run code or to touch the system."""
    for entry in checkpoint.listing.files():
        if entry.suffix in _SUFFIXES and entry.size <= _MOST_NBYTES:
            try:
                yield from checkpoint.fact(_named, entry.path)
            except FactUnavailable:
                continue


def _named(checkpoint: Checkpoint, path: str) -> list[NamedCode]:
    text = checkpoint.files.text(path)
    # A tag may be written with escapes and handles, so that only its mark is sure to be there.
    return list(_in_text(path, text)) if "!" in text or any(key in text for key in _KEYS) else []


def _in_text(path: str, text: str) -> Iterator[NamedCode]:
    import yaml

    before = None
    try:
        # The text as it comes: aliases are not followed, nothing is made of it.
        for number, event in enumerate(yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
            value = event.value if isinstance(event, yaml.ScalarEvent) else None
            line = event.start_mark.line + 1 if event.start_mark else 0
            if number > _MOST_EVENTS:
                return
            if (name := _of_tag(getattr(event, "tag", None))) and (what := _harm(name)):
                yield NamedCode(path, f"line {line}", name, f"{_TAG} {what}")
            if before in _KEYS and value and (what := harm(value)):
                yield NamedCode(path, f"line {line}, {before}", value, f"{_TARGET} {what}")
            before = value
    except (yaml.YAMLError, RecursionError, ValueError):
        return


def _harm(name: str) -> str | None:
    return REACHES if name in _REACHING else harm(name)


def _of_tag(tag: object) -> str | None:
    """The name in a tag: `!!python/object/apply:os.system`, `!new:torch.nn.Linear`."""
    if not isinstance(tag, str):
        return None
    if tag.startswith(_PYTHON):
        return tag.removeprefix(_PYTHON).partition(":")[2] or None
    return next((tag.removeprefix(mark) for mark in _HYPER if tag.startswith(mark)), None)

"""The modules of a sentence-transformers model: `modules.json` names a directory for each, some of which hold weights."""

from __future__ import annotations

from collections.abc import Mapping

from ckpt_rules import Checkpoint, FactUnavailable

FILE = "modules.json"


def module_paths(checkpoint: Checkpoint) -> list[str]:
    """The directories that modules.json names, in its order; '' is the top. None of them where there is no such file."""
    if checkpoint.listing.get(FILE) is None:
        return []
    try:
        modules = checkpoint.contents(FILE)
    except FactUnavailable:
        return []
    named = [m.get("path") for m in modules if isinstance(m, Mapping)] if isinstance(modules, list) else []
    return [path.strip("/") for path in named if isinstance(path, str)]

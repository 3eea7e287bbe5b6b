"""The modules of a sentence-transformers model: `modules.json` names a directory for each, some of which hold weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpt_rules import Checkpoint, FactUnavailable, WeightFile, find_weights

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


def module_weights(checkpoint: Checkpoint) -> Iterator[WeightFile]:
    """The weights of every module below the top, each tensor's name led by its module's."""
    for path in module_paths(checkpoint):
        if not path:
            continue
        try:
            files = find_weights(checkpoint, path).files
        except FactUnavailable as absent:
            if absent.blocked:
                raise
            continue
        for file in files:
            yield replace(file, tensors={f"{path}.{name}": tensor for name, tensor in file.tensors.items()})

"""Which files of a checkpoint some loader reads, by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ckpt_rules import Entry, conventions

_SUFFIXES = conventions.suffixes.WEIGHTS - {".tar", ".distcp"} | {".pkl", ".json", ".npy", ".gguf", ".model"}
_NAMES = conventions.pointers.COMMON | {conventions.distributed.METADATA}
LOGS = ("wandb/*", "mlruns/*", "runs/*", "logs/*", ".git/*")


def is_loaded(entry: Entry) -> bool:
    """Whether it has the name of weights, state or configuration, and does not lie among logs."""
    known = entry.suffix in _SUFFIXES or entry.name in _NAMES or entry.name.endswith(".pth.tar")
    return known and not any(fnmatchcase(entry.path, glob) for glob in LOGS)

"""Which files of a checkpoint some loader reads, by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ckpt_rules import Entry

_SUFFIXES = frozenset({
    ".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".json", ".npy", ".npz", ".h5", ".keras", ".msgpack",
    ".gguf", ".model",
})  # fmt: skip
_POINTERS = frozenset({".metadata", "latest", "last_checkpoint", "latest_checkpointed_iteration.txt"})
LOGS = ("wandb/*", "mlruns/*", "runs/*", "logs/*", ".git/*")


def is_loaded(entry: Entry) -> bool:
    """Whether it has the name of weights, state or configuration, and does not lie among logs."""
    known = entry.suffix in _SUFFIXES or entry.name in _POINTERS or entry.name.endswith(".pth.tar")
    return known and not any(fnmatchcase(entry.path, glob) for glob in LOGS)

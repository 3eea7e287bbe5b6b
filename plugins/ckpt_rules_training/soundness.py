"""Whether a file is damaged, which other rules report, or only holds the wrong thing, which is ours to report."""

from __future__ import annotations

from ckpt_rules import Checkpoint, FactUnavailable


def is_sound(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a torch or JSON file can be read as a whole."""
    try:
        file = checkpoint.json(path) if path.endswith(".json") else checkpoint.torch_file(path)
    except FactUnavailable:
        return False
    return not any(p.fatal for p in file.problems)

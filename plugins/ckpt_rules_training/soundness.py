"""Whether a file is damaged, which other rules report, or only holds the wrong thing, which is ours to report."""

from __future__ import annotations

from ckpt_rules import Checkpoint, FactUnavailable

_DISTRIBUTED = ".metadata"


def is_sound(checkpoint: Checkpoint, path: str) -> bool:
    """Whether a torch or JSON file, or what a distributed checkpoint says of itself, can be read as a whole."""
    try:
        if path.rpartition("/")[2] == _DISTRIBUTED:
            metadata = checkpoint.files.distributed(path)
            return metadata.problem is None and not metadata.transforms
        file = checkpoint.files.json(path) if path.endswith(".json") else checkpoint.files.torch_file(path)
    except FactUnavailable:
        return False
    return not any(p.fatal for p in file.problems)

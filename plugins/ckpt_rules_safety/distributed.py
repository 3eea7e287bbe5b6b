"""The pickles in a distributed checkpoint: objects that its `.distcp` files keep beside the tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpt_rules import Checkpoint, FactUnavailable, TorchFile

# torchtitan pickles the state of each data-parallel rank's loader by itself.
_PICKLED = re.compile(r"dataloader\.dp_rank_\d+")


def object_files(checkpoint: Checkpoint) -> Iterator[TorchFile]:
    """The objects of each distributed checkpoint, which a load unpickles without restraint; tensors are loaded weights-only.

    Each comes with the path of its file, and with the name of the object in its streams.
    """
    for metadata in checkpoint.files.metadata_files:
        for path, items in _objects(checkpoint, metadata).items():
            names, spans = zip(*((name, span) for name, span in items), strict=True)
            try:
                parts = checkpoint.files.torch_parts(path, spans)
            except FactUnavailable:
                continue
            yield from (_named(part, name) for part, name in zip(parts, names, strict=True))


def _named(part: TorchFile, name: str) -> TorchFile:
    globals_ = tuple(g._replace(stream=f"{name}: {g.stream}") for g in part.globals)
    # A pickle says nothing of the file that it lies in; what is wrong with that file is its own layout's business.
    nested = () if _PICKLED.fullmatch(name) else tuple(f"{name}: {n}" for n in part.nested)
    return replace(part, value=None, globals=globals_, problems=(), nested=nested)


def _objects(checkpoint: Checkpoint, path: str) -> Mapping[str, list[tuple[str, tuple[int, int]]]]:
    """Name, first byte and length of each object, by the file that it lies in; nothing where the metadata is not a metadata."""
    found: dict[str, list[tuple[str, tuple[int, int]]]] = defaultdict(list)
    try:
        metadata = checkpoint.files.distributed(path)
    except FactUnavailable:
        return found
    for item in metadata.items:
        if item.name in metadata.objects:
            found[item.path].append((item.name, (item.offset, item.nbytes)))
    return found

"""Code that the configuration inside of a `.keras` file names."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

from ckpt_rules import ArchiveEntry, Checkpoint, Entry, FactUnavailable
from ckpt_rules_safety.keras_code import named_by_keras
from ckpt_rules_safety.named_code import NamedCode

_CONFIG = "config.json"
_PIECE_NBYTES, _MOST_NBYTES = 1 << 16, 16 << 20


def named_in_archives(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """Every entry of a `config.json` in a `.keras` file that names code."""
    for entry in checkpoint.listing.files("*.keras"):
        try:
            config = checkpoint.fact(_config_of, entry)
        except FactUnavailable:
            continue
        if isinstance(config, dict):
            yield from (NamedCode(entry.path, f"{_CONFIG}: {key}", *rest) for key, *rest in named_by_keras(config))


def _config_of(checkpoint: Checkpoint, entry: Entry) -> object:
    """The parsed configuration; None where there is none that can be read."""
    member = next((e for e in checkpoint.files.archive(entry.path).entries if e.name == _CONFIG), None)
    if member is None or member.offset is None or member.nbytes > _MOST_NBYTES:
        return None
    try:
        return json.loads(_content(checkpoint, entry.path, member.offset, member))
    except (ValueError, RecursionError, zlib.error):
        return None


def _content(checkpoint: Checkpoint, path: str, start: int, member: ArchiveEntry) -> bytes:
    end = start + member.nbytes
    spans = tuple((at, min(_PIECE_NBYTES, end - at)) for at in range(start, end, _PIECE_NBYTES))
    raw = b"".join(checkpoint.files.byte_ranges(path, spans))
    return raw if member.stored else zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, _MOST_NBYTES)

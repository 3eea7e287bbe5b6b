"""`checkpoint`, in which Orbax kept the tree of an item before it wrote `_METADATA`: msgpack, with a text for each array."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, FactUnavailable

FILE = "checkpoint"
_TEXT = re.compile(rb"PLACEHOLDER://")
_MOST = 100_000


def placeholders(checkpoint: Checkpoint, path: str) -> list[str]:
    """The arrays that the tree names, which lie in stores of their own; none where it can't be read."""
    if not checkpoint.listing.has_file(path):
        return []
    try:
        data = checkpoint.files.text(path).encode("utf-8", "surrogateescape")
    except FactUnavailable:
        return []
    return list(dict.fromkeys(_names(data)))[:_MOST]


def _names(data: bytes) -> Iterator[str]:
    """Each text by the length that msgpack writes before it: in the first byte, or in the one or two bytes that follow it."""
    for match in _TEXT.finditer(data):
        start = match.start()
        before = data[max(start - 3, 0) : start]
        if before[-2:-1] == b"\xd9":
            length = before[-1]
        elif before[-3:-2] == b"\xda":
            length = int.from_bytes(before[-2:], "big")
        elif before and 0xA0 <= before[-1] <= 0xBF:
            length = before[-1] & 0x1F
        else:
            continue
        name = data[match.end() : start + length]
        if name and start + length <= len(data):
            yield name.decode("utf-8", "replace")

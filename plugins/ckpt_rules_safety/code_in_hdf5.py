"""Code that the configuration inside of Keras's HDF5 files names.

Keras keeps it as JSON in the attribute `model_config`, whose text lies in one piece wherever HDF5 puts it: so it is found
by its first characters, without a reader of HDF5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ckpt_rules import Checkpoint, Content, Entry, FactUnavailable
from ckpt_rules_safety.keras_code import named_by_keras
from ckpt_rules_safety.named_code import NamedCode

_KEY = "model_config"
_START = re.compile(rb'\{"(?:class_name|module|config|registered_name)": ?["{]')
_PIECE_NBYTES, _END_NBYTES = 1 << 16, 4 << 20
_MOST_STARTS = 1_000


def named_in_hdf5(checkpoint: Checkpoint) -> Iterator[NamedCode]:
    """Every entry of a model's configuration that names code, in the first and the last 4 MiB of an HDF5 file."""
    for entry in checkpoint.listing.files():
        if entry.suffix not in (".h5", ".hdf5", ".keras"):
            continue
        try:
            if checkpoint.files.sniff(entry.path).content is Content.HDF5:
                yield from (
                    NamedCode(entry.path, f"{_KEY}: {key}", *rest) for key, *rest in checkpoint.fact(_named, entry)
                )
        except FactUnavailable:
            continue


def _named(checkpoint: Checkpoint, entry: Entry) -> list[tuple[str, str, str]]:
    return [found for raw in _ends(checkpoint, entry) for config in _configs(raw) for found in named_by_keras(config)]


def _ends(checkpoint: Checkpoint, entry: Entry) -> Iterator[bytes]:
    first = min(entry.size, _END_NBYTES)
    for start, end in ((0, first), (max(first, entry.size - _END_NBYTES), entry.size)):
        spans = tuple((at, min(_PIECE_NBYTES, end - at)) for at in range(start, end, _PIECE_NBYTES))
        yield b"".join(checkpoint.files.byte_ranges(entry.path, spans))


def _configs(raw: bytes) -> Iterator[dict[object, object]]:
    """The JSON objects that look like a model's configuration and lie in none before them."""
    decoder, end = json.JSONDecoder(), 0
    for number, match in enumerate(_START.finditer(raw)):
        if match.start() < end:
            continue
        if number > _MOST_STARTS:
            return
        text = raw[match.start() :].split(b"\0", 1)[0].decode("utf-8", "replace")
        try:
            value, nchars = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        end = match.start() + nchars  # characters, of which there are no more than bytes
        if isinstance(value, dict):
            yield value

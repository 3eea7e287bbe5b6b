"""The header of a safetensors file, read with our own bounds checks. Tensor data are never read.

The format: eight bytes of little-endian header length, a JSON object `{name: {dtype, shape, data_offsets}}` with an
optional `__metadata__` of strings, then the data: each tensor's bytes follow another's, without a hole, to the very end.
What is valid is decided as the safetensors library 0.8 does, with its leniencies (several entries of one name, unknown
fields, white space before the brace).
"""

from __future__ import annotations

from ckpt_rules.facts.tensors import SafetensorsFile, TensorInfo
from ckpt_rules.readers.budget import Budget
from ckpt_rules.readers.damage import Damage, ProblemLog, read_exactly
from ckpt_rules.readers.safetensors.header import HeaderParser, Span
from ckpt_rules.readers.safetensors.header_text import HeaderText
from ckpt_rules.storage import Source

MAX_HEADER_NBYTES = 100_000_000
LENGTH_NBYTES = 8


def read_safetensors(source: Source, path: str, budget: Budget | None = None) -> SafetensorsFile:
    """The tensors that a safetensors file lists, and everything that is wrong with the list.

    budget: drawn on for them
    """
    log, budget = ProblemLog(), budget or Budget()
    length = 0
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    try:
        length = _header_length(source)
        data_start = LENGTH_NBYTES + length
        text = HeaderText(source, LENGTH_NBYTES, data_start, budget)
        parser = HeaderParser(text, data_start, log, budget)
        tensors, metadata = parser.tensors, parser.metadata
        parser.parse()
        if not parser.incomplete:
            _check_coverage(parser, data_start, source.size, log)
    except Damage as damage:
        log.note(damage)
    return SafetensorsFile(path, source.size, tensors, metadata, length, log.all())


def _header_length(source: Source) -> int:
    size = source.size
    if size < LENGTH_NBYTES:
        raise Damage("cut-short", f"the file has {size} bytes, fewer than the 8 that hold the header's length", size)
    head = read_exactly(source, 0, min(size, LENGTH_NBYTES + 1))
    length = int.from_bytes(head[:LENGTH_NBYTES], "little")
    if length > MAX_HEADER_NBYTES:
        allowed = f"more than the {MAX_HEADER_NBYTES:,} that the format allows"
        raise Damage("header-length", f"the header claims {length:,} bytes, {allowed}", 0)
    if LENGTH_NBYTES + length > size:
        # Text where the header should be: its length is right, and it is the end of the file that is gone.
        code, at = ("cut-short", size) if head[LENGTH_NBYTES:] == b"{" else ("header-length", 0)
        there = f"and the file has only {size - LENGTH_NBYTES:,} after its length"
        raise Damage(code, f"the header claims {length:,} bytes, {there}", at)
    return length


def _check_coverage(parser: HeaderParser, data_start: int, size: int, log: ProblemLog) -> None:
    """Check that the tensors lie one after the other and end where the file ends."""
    end = data_start + parser.last_end
    if not parser.in_order:
        end = data_start + _check_order(parser.spans(), data_start, log)
    described = f"the file has {size:,} bytes and its header describes {end:,}"
    if end > size:
        log.add("cut-short", f"{described}: it was cut short by {end - size:,}", size)
    elif end < size:
        log.add("size", f"{described}: {size - end:,} bytes belong to no tensor", end)


def _check_order(spans: list[Span], data_start: int, log: ProblemLog) -> int:
    """Note holes and overlaps; the offset that the tensors reach, in bytes after the header."""
    reached, previous = 0, None
    for begin, end, name in spans:
        if begin > reached:
            where = f"between '{previous}' and '{name}'" if previous else f"before the first tensor, '{name}',"
            message = f"{begin - reached:,} bytes {where} belong to no tensor"
            log.add("hole", message, data_start + reached, name)
        elif begin < reached:
            message = (
                f"tensor '{name}' begins at data offset {begin:,}, inside '{previous}', which continues to {reached:,}"
            )
            log.add("overlap", message, data_start + begin, name)
        if end > reached or previous is None:
            reached, previous = end, name
    return reached

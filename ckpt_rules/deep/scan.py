"""The map: one piece of a file -> what was found in it. Every chunk is read once and stays in the cache while it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from ckpt_rules.deep.checksums import crc32, new_digest
from ckpt_rules.deep.kernels import itemsize, measure
from ckpt_rules.deep.pieces import ALIGNMENT, Piece
from ckpt_rules.deep.workers import Tell
from ckpt_rules.facts.values import Block, Measure, Values, ZipMember, joined
from ckpt_rules.storage import LocalSource, Source, Storage, reason

CHUNK_NBYTES = 2048 << 10
"""Stays in the caches of a common processor while it is used, and is long enough that threads seldom wait for one another."""

S = TypeVar("S", Block, ZipMember)


class Part(NamedTuple):
    """What was found in a piece.

    values:    of the elements of each block that lie in it
    checksums: the CRC-32 of what lies in it of each zip entry, and how many bytes that is
    digests:   by algorithm, in hexadecimal
    fault:     why it could not be read to its end, or None
    """

    values: dict[Block, Values]
    checksums: dict[ZipMember, tuple[int, int]]
    digests: dict[str, str]
    fault: str | None = None


def scan(storage: Storage, piece: Piece, tell: Tell | None = None, *, forget: bool = False) -> Part:
    """Read one piece.

    forget: whether the system shall drop what was read from its cache
    """
    scanned = _Scan(piece)
    try:
        with storage.open(piece.path) as source:
            fault = _feed(source, piece, scanned, tell, forget=forget)
    except OSError as error:
        fault = reason(error)
    return scanned.part(fault)


def _feed(source: Source, piece: Piece, scanned: _Scan, tell: Tell | None, *, forget: bool) -> str | None:
    """Read the piece chunk by chunk; why it can't be read to its end, or None."""
    at = piece.start
    buffer = memoryview(bytearray(min(CHUNK_NBYTES, piece.stop - at)))
    while at < piece.stop:
        chunk = read_chunk(source, at, buffer[: piece.stop - at])
        taken = scanned.take(chunk, at)
        if not taken:
            return f"it ends at byte {at + len(chunk):,}; when it was listed it was longer"
        if forget and isinstance(source, LocalSource):
            source.forget(at, taken)
        if tell is not None:
            tell(taken)
        at += taken
    return None


def read_chunk(source: Source, at: int, buffer: memoryview) -> memoryview:
    """The bytes from byte `at` on, as many as the buffer takes or there are; they lie in it where the source can do that."""
    if isinstance(source, LocalSource):
        return buffer[: source.read_into(at, buffer)]
    return memoryview(source.read(at, len(buffer)))


class _Scan:
    """What is known of a piece that is read from its start on."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._blocks, self._members = _Spans(piece.blocks), _Spans(piece.members)
        self._values: dict[Block, list[Values]] = {}
        self._fingerprints: dict[Block, int] = {}
        self._checksums: dict[ZipMember, tuple[int, int]] = {}
        self._digests = {algorithm: new_digest(algorithm, piece.stop) for algorithm in piece.digests}

    def take(self, chunk: memoryview, at: int) -> int:
        """Take in bytes that start at byte `at` of the file; how many of them, for none is cut inside of an element."""
        end = at + len(chunk)
        blocks = list(self._blocks.within(at, end))
        if blocks and end < self._piece.stop and blocks[-1].offset + blocks[-1].nbytes > end:
            end -= (end - blocks[-1].offset) % ALIGNMENT
        for block in blocks:
            start = max(block.offset, at)
            if start < end:
                self._take_block(block, chunk[start - at : min(block.offset + block.nbytes, end) - at])
        for member in self._members.within(at, end):
            self._take_member(member, chunk[max(member.offset - at, 0) : min(member.offset + member.nbytes, end) - at])
        for digest in self._digests.values():
            digest.update(chunk[: end - at])
        return end - at

    def _take_block(self, block: Block, part: memoryview) -> None:
        measures = self._piece.measures
        if whole := len(part) // (size := itemsize(block.dtype) or 1) * size:
            found = measure(part[:whole], block.dtype, measures, big_endian=block.big_endian)
            self._values.setdefault(block, []).append(found)
        if Measure.FINGERPRINT in measures:
            self._fingerprints[block] = crc32(part, self._fingerprints.get(block, 0))

    def _take_member(self, member: ZipMember, part: memoryview) -> None:
        crc, nbytes = self._checksums.get(member, (0, 0))
        self._checksums[member] = crc32(part, crc), nbytes + len(part)

    def part(self, fault: str | None) -> Part:
        """All that was found."""
        values = {
            block: joined(parts)._replace(fingerprint=self._fingerprints.get(block))
            for block, parts in self._values.items()
        }
        digests = {} if fault else {algorithm: digest.hexdigest() for algorithm, digest in self._digests.items()}
        return Part(values, self._checksums, digests, fault)


class _Spans(Generic[S]):
    """Spans in the order of the file, asked for range after range."""

    def __init__(self, spans: tuple[S, ...]) -> None:
        self._spans: tuple[S, ...] = spans
        self._first = 0

    def within(self, start: int, end: int) -> Iterator[S]:
        """Those that overlap with a range; no later range may start before it."""
        while self._first < len(self._spans) and _end(self._spans[self._first]) <= start:
            self._first += 1
        for number in range(self._first, len(self._spans)):
            if self._spans[number].offset >= end:
                return
            yield self._spans[number]


def _end(span: Block | ZipMember) -> int:
    return span.offset + span.nbytes

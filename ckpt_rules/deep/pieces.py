"""Cuts the files of a checkpoint into pieces that can be read by themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from ckpt_rules.facts.values import Block, Digest, Measure, ZipMember
from ckpt_rules.limits import MIB

PIECE_NBYTES = 32 * MIB
"""What one task reads: long enough that handing it out costs nothing, short enough that Ctrl-C is heeded at once."""

ALIGNMENT = 16
"""Blocks are cut between elements: no element is longer than this."""

_GAP_NBYTES = MIB // 4
"""Bytes that nobody asked for are read along where they are fewer than this."""


class CastSpan(NamedTuple):
    """A block that is compared as another dtype.

    dtype: as which
    """

    path: str
    offset: int
    nbytes: int
    source: str
    dtype: str


S = TypeVar("S", Block, ZipMember, CastSpan)
K = TypeVar("K", Block, ZipMember, CastSpan, Digest)


class Piece(NamedTuple):
    """Bytes `start` to `stop` of a file, and what is to be computed of them.

    blocks, members, casts: those that overlap with the piece, sorted, none of a kind overlapping with another of it
    digests:                algorithms; the piece is then the whole file
    """

    path: str
    start: int
    stop: int
    blocks: tuple[Block, ...] = ()
    members: tuple[ZipMember, ...] = ()
    casts: tuple[CastSpan, ...] = ()
    digests: tuple[str, ...] = ()
    measures: Measure = Measure.NONE


class Plan(NamedTuple):
    """All pieces, in the order of the files, and the blocks that are in none of them.

    unread: blocks that overlap with others in so many ways that to read them all would take longer than the files are
    """

    pieces: tuple[Piece, ...]
    unread: frozenset[Block]

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(piece.stop - piece.start for piece in self.pieces)


def plan(
    sizes: dict[str, int],
    blocks: Iterable[Block],
    members: Iterable[ZipMember],
    digests: Iterable[Digest],
    measures: Measure,
    casts: Iterable[CastSpan] = (),
) -> Plan:
    """The pieces in which everything that is asked for is read once.

    sizes: bytes of each file
    """
    blocks_of, members_of, digests_of, casts_of = (
        _by_path(blocks),
        _by_path(members),
        _by_path(digests),
        _by_path(casts),
    )
    pieces: list[Piece] = []
    unread: set[Block] = set()
    for path in sorted({*blocks_of, *members_of, *digests_of, *casts_of} & sizes.keys()):
        first, inner = _apart(blocks_of[path])
        entries, _ = _apart(members_of[path])  # of entries that overlap readers take different ones: zip/ambiguous
        copies, _ = _apart(casts_of[path])
        algorithms = tuple(sorted(d.algorithm for d in digests_of[path]))
        if algorithms:
            pieces.append(
                Piece(path, 0, sizes[path], tuple(first), tuple(entries), tuple(copies), algorithms, measures)
            )
        else:
            pieces += _cut(path, first, entries, copies, measures)
        room = sizes[path]
        for block in inner:
            room -= block.nbytes
            if room < 0:
                unread.add(block)
            else:
                pieces += _cut(path, [block], [], [], measures)
    return Plan(tuple(pieces), frozenset(unread))


def _by_path(items: Iterable[K]) -> dict[str, list[K]]:
    found: dict[str, list[K]] = defaultdict(list)
    for item in items:
        found[item.path].append(item)
    return found


def _apart(spans: Iterable[S]) -> tuple[list[S], list[S]]:
    """Those that don't overlap, in the order of the file; and those that overlap with one of these."""
    apart: list[S] = []
    inner: list[S] = []
    end = 0
    for span in sorted(set(spans), key=lambda s: (s.offset, -s.nbytes)):
        if span.offset >= end:
            apart.append(span)
            end = span.offset + span.nbytes
        else:
            inner.append(span)
    return apart, inner


def _cut(
    path: str, blocks: list[Block], members: list[ZipMember], casts: list[CastSpan], measures: Measure
) -> Iterator[Piece]:
    # What is cast lies in a block, and where blocks are asked for, cutting between their elements cuts between its own.
    elements = [(span.offset, span.nbytes) for span in blocks or casts]
    starts = [b.offset for b in blocks], [m.offset for m in members], [c.offset for c in casts]
    for at, end in _runs([(s.offset, s.offset + s.nbytes) for spans in (blocks, members, casts) for s in spans]):
        start = at
        while start < end:
            stop = _between_elements(min(start + PIECE_NBYTES, end), elements)
            yield Piece(
                path,
                start,
                stop,
                _within(blocks, starts[0], start, stop),
                _within(members, starts[1], start, stop),
                _within(casts, starts[2], start, stop),
                (),
                measures,
            )
            start = stop


def _runs(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges of a file that have to be read, with the small gaps between them."""
    ranges.sort()
    start, end = ranges[0] if ranges else (0, 0)
    for offset, stop in ranges:
        if offset > end + _GAP_NBYTES:
            yield start, end
            start = offset
        end = max(end, stop)
    yield start, end


def _between_elements(stop: int, elements: list[tuple[int, int]]) -> int:
    """The last byte up to `stop` that is not inside of an element."""
    number = bisect_right(elements, (stop, 0)) - 1
    if number < 0 or sum(elements[number]) <= stop:
        return stop
    return stop - (stop - elements[number][0]) % ALIGNMENT


def _within(spans: list[S], starts: list[int], start: int, stop: int) -> tuple[S, ...]:
    first = max(0, bisect_right(starts, start) - 1)
    last = bisect_right(starts, stop - 1)
    return tuple(s for s in spans[first:last] if s.offset + s.nbytes > start)

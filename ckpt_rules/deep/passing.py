"""The one pass: every piece is scanned on an executor, and what was found is put together."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from ckpt_rules.deep.checksums import crc32_joined
from ckpt_rules.deep.kernels import itemsize
from ckpt_rules.deep.locate import find_tensors, zip_members
from ckpt_rules.deep.pieces import CastSpan, Piece, plan
from ckpt_rules.deep.scan import Part, scan
from ckpt_rules.deep.workers import spread
from ckpt_rules.facts.files import EntryKind
from ckpt_rules.facts.values import Block, BytesRead, Cast, Digest, Values, Wanted, ZipMember, joined

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.values import Located
    from ckpt_rules.reading import Reading


def read_bytes(
    checkpoint: Checkpoint, wanted: Wanted, reading: Reading, tensors: Iterable[Located] | None = None
) -> BytesRead:
    """Everything that is wanted of a checkpoint's bytes, or of some of its tensors. FactUnavailable where it can't be listed."""
    sizes = {e.path: e.size for e in checkpoint.listing if e.kind is EntryKind.FILE}
    looked_at = checkpoint.fact(find_tensors) if tensors is None else tensors
    blocks = {b for t in looked_at for b in t.blocks} if wanted.measures else set()
    members = checkpoint.fact(zip_members) if wanted.checksums else ()
    casts = {_span(block, cast.dtype) for cast in wanted.casts for block in cast.blocks}
    planned = plan(sizes, blocks, members, wanted.digests, wanted.measures, casts)
    found = _Found()
    for piece, part in spread(partial(scan, checkpoint.files.storage), planned.pieces, planned.nbytes, reading):
        found.add(piece, part)
    return found.whole(wanted, planned.nbytes)


def _span(block: Block, dtype: str) -> CastSpan:
    return CastSpan(block.path, block.offset, block.nbytes, block.dtype, dtype)


class _Found:
    """The reduce: parts of one block or zip entry, put together in the order of the file whichever came first."""

    def __init__(self) -> None:
        self._values: dict[Block, list[tuple[int, Values]]] = {}
        self._checksums: dict[ZipMember, list[tuple[int, int, int]]] = {}
        self._casts: dict[CastSpan, list[tuple[int, int, int]]] = {}
        self._digests: dict[Digest, str] = {}
        self._unread: dict[str, str] = {}

    def add(self, piece: Piece, part: Part) -> None:
        """Take in what one piece gave."""
        for block, values in part.values.items():
            self._values.setdefault(block, []).append((piece.start, values))
        for member, (crc, nbytes) in part.checksums.items():
            self._checksums.setdefault(member, []).append((piece.start, crc, nbytes))
        for span, (crc, nbytes) in part.casts.items():
            self._casts.setdefault(span, []).append((piece.start, crc, nbytes))
        self._digests |= {Digest(piece.path, algorithm): value for algorithm, value in part.digests.items()}
        if part.fault:
            self._unread.setdefault(piece.path, part.fault)

    def whole(self, wanted: Wanted, nbytes: int) -> BytesRead:
        """All that is known of whole blocks, entries and files."""
        values = {b: v for b, parts in self._values.items() if (v := _values(b, [v for _, v in sorted(parts)]))}
        checksums = {m: c for m, parts in self._checksums.items() if (c := _checksum(m, sorted(parts))) is not None}
        casts = {cast: crc for cast in wanted.casts if (crc := self._cast(cast)) is not None}
        return BytesRead(wanted, values, checksums, self._digests, casts, self._unread, nbytes)

    def _cast(self, cast: Cast) -> int | None:
        whole = 0
        for block in cast.blocks:
            span = _span(block, cast.dtype)
            parts = sorted(self._casts.get(span, []))
            if sum(nbytes for *_, nbytes in parts) != block.nbytes:
                return None
            shrunk = (itemsize(cast.dtype) or 1) / (itemsize(block.dtype) or 1)
            for _, crc, nbytes in parts:
                whole = crc32_joined(whole, crc, int(nbytes * shrunk))
        return whole


def _values(block: Block, parts: list[Values]) -> Values | None:
    size = itemsize(block.dtype) or 1
    if sum(part.numel for part in parts) * size < block.nbytes:
        return None
    whole = joined(parts)
    crc: int | None = 0
    for part in parts:
        known = part.fingerprint
        crc = None if crc is None or known is None else crc32_joined(crc, known, part.numel * size)
    return whole._replace(fingerprint=crc)


def _checksum(member: ZipMember, parts: list[tuple[int, int, int]]) -> int | None:
    crc = 0
    for _, more, nbytes in parts:
        crc = crc32_joined(crc, more, nbytes)
    return crc if sum(nbytes for _, _, nbytes in parts) == member.nbytes else None

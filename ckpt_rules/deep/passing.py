"""The one pass: every piece is scanned on an executor, and what was found is put together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from ckpt_rules.deep.checksums import crc32_joined
from ckpt_rules.deep.kernels import itemsize
from ckpt_rules.deep.locate import zip_members
from ckpt_rules.deep.pieces import CastSpan, Piece, plan
from ckpt_rules.deep.reading import Progress, Reading
from ckpt_rules.deep.scan import Part, scan
from ckpt_rules.facts.files import EntryKind
from ckpt_rules.facts.values import Block, BytesRead, Cast, Digest, Values, Wanted, ZipMember, joined

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.values import Located
    from ckpt_rules.storage import Storage

_AHEAD = 4
"""Pieces that wait for each worker."""


def read_bytes(
    checkpoint: Checkpoint, wanted: Wanted, reading: Reading, tensors: Iterable[Located] | None = None
) -> BytesRead:
    """Everything that is wanted of a checkpoint's bytes, or of some of its tensors. FactUnavailable where it can't be listed."""
    sizes = {e.path: e.size for e in checkpoint.listing if e.kind is EntryKind.FILE}
    looked_at = checkpoint.located if tensors is None else tensors
    blocks = {b for t in looked_at for b in t.blocks} if wanted.measures else set()
    members = checkpoint.fact(zip_members) if wanted.checksums else ()
    casts = {_span(block, cast.dtype) for cast in wanted.casts for block in cast.blocks}
    planned = plan(sizes, blocks, members, wanted.digests, wanted.measures, casts)
    found = _Found()
    with _workers(checkpoint.storage, reading, planned.nbytes) as (executor, work):
        for piece, part in _mapped(executor, work, planned.pieces):
            found.add(piece, part)
    return found.whole(wanted, planned.nbytes)


@contextmanager
def _workers(storage: Storage, reading: Reading, nbytes: int) -> Iterator[tuple[Executor, Callable[[Piece], Part]]]:
    """An executor, and what to run on it."""
    # More than there is memory for would push everything else out of the cache, and itself as well.
    forget = nbytes > _memory()
    if reading.executor is not None:
        yield reading.executor, partial(scan, storage, forget=forget)
        return
    counter = _Counter(nbytes, reading.progress)
    executor = ThreadPoolExecutor(reading.jobs or _cores(), thread_name_prefix="ckpt-rules")
    try:
        yield executor, partial(scan, storage, tell=counter.add, forget=forget)
    except BaseException:
        counter.stopped = True
        raise
    finally:
        executor.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Raised in the threads, where nobody waits for what they find any more."""


class _Counter:
    def __init__(self, nbytes: int, progress: Progress | None) -> None:
        self.stopped = False
        self._nbytes, self._progress = nbytes, progress
        self._read, self._lock = 0, threading.Lock()

    def add(self, nbytes: int) -> None:
        if self.stopped:
            raise _Stopped
        if self._progress is not None:
            with self._lock:
                self._read += nbytes
                read = self._read
            self._progress(read, self._nbytes)


def _mapped(executor: Executor, work: Callable[[Piece], Part], pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Part]]:
    """Each piece with its part, as they come; few pieces wait at a time, so that a cluster's queue is not flooded."""
    left = iter(pieces)
    running: dict[Future[Part], Piece] = {}
    most = _AHEAD * getattr(executor, "_max_workers", _cores())
    while True:
        running |= {executor.submit(work, piece): piece for piece in islice(left, most - len(running))}
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of the machine's memory; as good as none of them where that can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62

"""Tasks that read pieces of files, spread over threads or whatever executor the caller has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from ckpt_rules.reading import Progress, Reading

_AHEAD = 4
"""Tasks that wait for each worker."""

Tell = Callable[[int], None]
"""Told how many more bytes were read. An exception that it raises ends the reading."""

T_contra = TypeVar("T_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
R = TypeVar("R")


class Work(Protocol[T_contra, R_co]):
    """What is done with one task."""

    def __call__(self, task: T_contra, /, tell: Tell | None = None, *, forget: bool = False) -> R_co:
        """Do it; `forget` asks that the system drop what was read from its cache."""
        ...


def spread(work: Work[T, R], tasks: Iterable[T], nbytes: int, reading: Reading) -> Iterator[tuple[T, R]]:
    """Each task with what came of it, in the order in which they are done.

    nbytes: what all of them read together
    """
    with _workers(work, nbytes, reading) as (executor, done):
        yield from _mapped(executor, done, tasks)


@contextmanager
def _workers(work: Work[T, R], nbytes: int, reading: Reading) -> Iterator[tuple[Executor, Callable[[T], R]]]:
    """An executor, and what to run on it."""
    # More than there is memory for would push everything else out of the cache, and itself as well.
    forget = nbytes > _memory()
    if reading.executor is not None:
        yield reading.executor, partial(work, forget=forget)
        return
    counter = _Counter(nbytes, reading.progress)
    executor = ThreadPoolExecutor(reading.jobs or _cores(), thread_name_prefix="ckpt-rules")
    try:
        yield executor, partial(work, tell=counter.add, forget=forget)
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


def _mapped(executor: Executor, work: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Few tasks wait at a time, so that a cluster's queue is not flooded."""
    left = iter(tasks)
    running: dict[Future[R], T] = {}
    most = _AHEAD * getattr(executor, "_max_workers", _cores())
    while True:
        running |= {executor.submit(work, task): task for task in islice(left, most - len(running))}
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    """Bytes of the machine's memory; as good as none of them where that can't be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62

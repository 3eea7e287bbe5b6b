"""Runs mutants in processes that a loader may take down, each under a limit of memory and time."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from tests.differential.judge import BOTH_REFUSE, CRASH, FAILURES, MISS, Verdict

OUR_NBYTES, THEIR_NBYTES = 200 << 20, 1 << 30
OUR_SECONDS, THEIR_SECONDS, HANGS_SECONDS = 4, 6, 20
BATCH = 500
_PAGE = resource.getpagesize()


class Task(NamedTuple):
    """The mutants `start` to `stop` of one format."""

    file_format: str
    seed: int
    start: int
    stop: int


@dataclass(slots=True)
class Tally:
    """Counts of verdicts, and the failures: (verdict, number of the mutant)."""

    counts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    failures: list[tuple[Task, int, Verdict]] = field(default_factory=list)

    def add(self, task: Task, number: int, verdict: Verdict) -> None:
        """Count one mutant."""
        self.counts[task.file_format, verdict] += 1
        if verdict.kind in FAILURES:
            self.failures.append((task, number, verdict))


class OutOfTime(Exception):
    """A reading took longer than it may."""


@contextlib.contextmanager
def limited(nbytes: int, seconds: float) -> Iterator[None]:
    """Let what is inside take so much memory more than is taken now, and so much time."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * _PAGE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + nbytes, before[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def check(file_format: str, data: bytes) -> Verdict:
    """The verdict on some bytes; the loader may take the process down."""
    return examine(file_format, data, lambda verdict: None)


def examine(file_format: str, data: bytes, before: Any) -> Verdict:
    """The same; `before` is called with what holds if the loader does not come back."""
    from tests.differential.answers import ours, theirs, theirs_on_disk
    from tests.differential.judge import OVER, judge

    try:
        with limited(OUR_NBYTES, OUR_SECONDS):
            mine = ours(file_format, data)
    except (Exception, OutOfTime) as error:  # noqa: BLE001 - a reader raises nothing
        return Verdict(CRASH, f"{type(error).__name__}: {error}"[:120])
    before(Verdict(BOTH_REFUSE) if mine.faults else Verdict(MISS, "the loader takes the process down"))
    verdict = judge(file_format, mine, _guarded(theirs, file_format, data))
    if verdict.kind in (MISS, OVER):
        verdict = judge(file_format, mine, _guarded(theirs_on_disk, file_format, data))
    return verdict


def _guarded(load: Any, file_format: str, data: bytes) -> Any:
    from tests.differential.answers import Answer

    try:
        with limited(THEIR_NBYTES, THEIR_SECONDS):
            return load(file_format, data)
    except (OutOfTime, MemoryError) as error:
        return Answer(((type(error).__name__, ""),))


def _out_of_time(*_: object) -> None:
    raise OutOfTime


def prepare() -> None:
    """Set a process up to examine mutants."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _out_of_time)


def _work(connection: Connection) -> None:
    from tests.differential.mutants import mutant

    prepare()
    while (task := connection.recv()) is not None:
        for number in range(task.start, task.stop):
            data = mutant(task.file_format, task.seed, number)
            verdict = examine(task.file_format, data, lambda v, n=number: connection.send((n, v, False)))
            connection.send((number, verdict, True))
        connection.send((-1, Verdict(""), True))


class _Worker:
    """A process and what it is about."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.pending: tuple[int, Verdict] | None = None
        self.heard = time.monotonic()

    def give(self, task: Task) -> None:
        self.task, self.heard = task, time.monotonic()
        self.connection.send(task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run(tasks: list[Task], processes: int = 2) -> Tally:
    """Run all tasks; a worker that dies or hangs in a loader is replaced and its mutant counts as refused."""
    tally, queue = Tally(), tasks[::-1]
    workers = [_Worker() for _ in range(processes)]
    try:
        while queue or any(w.task for w in workers):
            for worker in workers:
                if worker.task is None and queue:
                    worker.give(queue.pop())
            busy = [w for w in workers if w.task]
            ready = wait([w.connection for w in busy], timeout=1)
            for worker in busy:
                lost = time.monotonic() - worker.heard > HANGS_SECONDS
                if worker.connection in ready:
                    lost = not _listen(worker, tally)
                if lost:
                    workers[workers.index(worker)] = _Worker()
                    queue += _bury(worker, tally)
    finally:
        for worker in workers:
            worker.end()
    return tally


def _listen(worker: _Worker, tally: Tally) -> bool:
    """Take in what a worker has to say; False where it is dead."""
    assert worker.task
    try:
        while worker.connection.poll():
            number, verdict, final = worker.connection.recv()
            worker.heard = time.monotonic()
            if number < 0:
                worker.task = worker.pending = None
                return True
            worker.pending = None if final else (number, verdict)
            if final:
                tally.add(worker.task, number, verdict)
    except (EOFError, OSError):
        return False
    return True


def _bury(worker: _Worker, tally: Tally) -> list[Task]:
    """Count what a dead worker was about; what is left of its task."""
    worker.end()
    assert worker.task
    if worker.pending is None:
        raise RuntimeError(f"a worker died outside of a loader, at {worker.task}")
    number, verdict = worker.pending
    tally.add(worker.task, number, verdict)
    return [worker.task._replace(start=number + 1)] if number + 1 < worker.task.stop else []

"""Mutants of one trainer, one after another in a process of their own, which is replaced when a loader takes it down."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.differential.resumes.judge import Ours, Theirs, Verdict, judge
from tests.differential.resumes.mutants import Mutant, mutate

NBYTES, SECONDS, HANGS_SECONDS = 4 << 30, 10.0, 60.0
TRAINERS = ("trainer", "accelerate", "lightning", "dcp-appstate", "dcp-flat")


class Judged(NamedTuple):
    """One mutant and all that is known of it."""

    trainer: str
    seed: int
    number: int
    mutant: Mutant
    ours: Ours
    theirs: Theirs
    verdict: Verdict


def trainer(name: str, folder: str) -> Any:
    """A trainer by its name, working in a folder."""
    from tests.differential.resumes.with_accelerate import WithAccelerate
    from tests.differential.resumes.with_dcp import WithAppState, WithFlatEntries
    from tests.differential.resumes.with_lightning import WithLightning
    from tests.differential.resumes.with_trainer import WithTrainer

    known = (WithTrainer, WithAccelerate, WithLightning, WithAppState, WithFlatEntries)
    return {kind.name: kind for kind in known}[name](folder)


class Bench:
    """A trainer, its undamaged save, and what comes back from that."""

    def __init__(self, name: str, folder: str) -> None:
        import torch

        from tests.differential.workers import _out_of_time

        import signal

        signal.signal(signal.SIGALRM, _out_of_time)
        torch.set_num_threads(1)
        self.name, self.folder = name, folder
        self.trainer = trainer(name, folder)
        self.save = self.trainer.make()
        self.sound = self.trainer.resume(self.save)
        gc.collect()
        gc.freeze()  # trainers collect garbage at each start, which takes longer the more there is

    def judged(self, seed: int, number: int) -> Judged:
        """The verdict on one mutant."""
        mutant = mutate(self.name, self.save, self.target, seed, number)
        return self.judge(seed, number, mutant)

    @property
    def target(self) -> str:
        """Where mutants lie: a save of this name, apart from the undamaged one."""
        return os.path.join(self.folder, "mutant", os.path.basename(self.save))

    def judge(self, seed: int, number: int, mutant: Mutant) -> Judged:
        """The verdict on what lies at the target."""
        our = ours(self.target)
        their = self.resumed(self.target)
        return Judged(self.name, seed, number, mutant, our, their, judge(self.name, mutant, our, their))

    def resumed(self, path: str) -> Theirs:
        """Resume from a save, and compare with the undamaged one."""
        from tests.differential.resumes.observed import differing
        from tests.differential.workers import OutOfTime, limited

        try:
            with limited(NBYTES, SECONDS):
                seen = self.trainer.resume(path)
        except OutOfTime:
            return Theirs("OutOfTime")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - DCP's own exceptions are no Exception
            last = next(reversed(str(error).strip().splitlines()), "") if type(error).__name__ == "CheckpointException" else str(error)
            return Theirs(f"{type(error).__name__}: {last}"[:300])
        return Theirs("", differing(self.sound, seen))


def ours(path: str) -> Ours:
    """What `verify` says of a save."""
    from ckpt_rules import verify

    try:
        report = verify(path)
    except Exception as error:  # noqa: BLE001 - it should raise for no checkpoint
        return Ours(2, (), f"{type(error).__name__}: {error}"[:300])
    found = tuple(f"{f.rule}: {f.message} ({f.place})" for f in report.findings if f.severity.value != "info")
    crash = next((f"{o.rule}: {o.crash.error}" for o in report.outcomes if o.crash), "")
    return Ours(int(report.exit_code), found, crash)


def _work(name: str, seed: int, start: int, stop: int, connection: Connection) -> None:
    import contextlib
    import logging
    import sys

    logging.disable(logging.ERROR)
    folder = tempfile.mkdtemp(prefix="resumes-")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            with contextlib.redirect_stderr(nowhere):
                bench = Bench(name, folder)
                for number in range(start, stop):
                    connection.send(number)
                    connection.send(bench.judged(seed, number))
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            connection.send(f"{type(error).__name__}: {error}")
            sys.exit(1)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    connection.send(None)


def run(name: str, seed: int, mutants: int) -> Iterator[Judged]:
    """All mutants; one in which a worker dies or hangs counts as raising."""
    at = 0
    while at < mutants:
        for judged in _worker(name, seed, at, mutants):
            at = judged.number + 1
            yield judged


def _worker(name: str, seed: int, start: int, stop: int) -> Iterator[Judged]:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, seed, start, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    about: int | None = None
    try:
        while mine.poll(HANGS_SECONDS):
            said = mine.recv()
            if said is None:
                return
            if isinstance(said, str):
                raise RuntimeError(f"mutant {about} of seed {seed}: {said}")
            if isinstance(said, Judged):
                yield said
            else:
                about = said
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
        mine.close()
    if about is None:
        raise RuntimeError("the worker died before its first mutant")
    yield _lost(name, seed, about)


def _lost(name: str, seed: int, number: int) -> Judged:
    """What a mutant is that took the process down: made once more, and verified, but not resumed."""
    from tests.differential.resumes.judge import Ours

    theirs = Theirs("the process died or hung")
    mutant = Mutant("?", "", f"number {number}")
    return Judged(name, seed, number, mutant, Ours(0), theirs, judge(name, mutant, Ours(0), theirs))


def timed(judged: Iterator[Judged]) -> tuple[list[Judged], float]:
    """All of them, and the seconds that they took."""
    started = time.monotonic()
    return list(judged), time.monotonic() - started

"""Mutants of one trainer, one after another in a process of their own, which is replaced when a loader takes it down."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.differential.resumes.judge import Ours, Theirs, Verdict, judge
from tests.differential.resumes.mutants import Mutant, mutate
from tests.differential.workers import OutOfTime, _out_of_time, limited

NBYTES, SECONDS, HANGS_SECONDS = 4 << 30, 30.0, 180.0
TRAINERS = ("trainer", "accelerate", "lightning", "dcp-appstate", "dcp-flat")
_LOST = Theirs("the process died or hung")


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

    known: tuple[Any, ...] = (WithTrainer, WithAccelerate, WithLightning, WithAppState, WithFlatEntries)
    return {kind.name: kind for kind in known}[name](folder)


class Bench:
    """A trainer, its undamaged save, and what comes back from that."""

    def __init__(self, name: str, folder: str) -> None:
        import torch

        signal.signal(signal.SIGALRM, _out_of_time)
        torch.set_num_threads(1)
        self.name, self.folder = name, folder
        self.trainer = trainer(name, folder)
        self.save = self.trainer.make()
        self.target = os.path.join(folder, "mutant", os.path.basename(self.save))
        self.sound = self.trainer.resume(self.save)
        gc.collect()
        gc.freeze()  # trainers collect garbage at each start, which takes longer the more there is

    def judged(self, seed: int, number: int, before: Callable[[Judged], Any]) -> Judged:
        """The verdict on one mutant; `before` is called with what holds if the loader does not come back."""
        mutant = mutate(self.name, self.save, self.target, seed, number)
        our = ours(self.target)
        lost = Judged(self.name, seed, number, mutant, our, _LOST, judge(self.name, mutant, our, _LOST))
        before(lost)
        their = self.resumed(self.target)
        return lost._replace(theirs=their, verdict=judge(self.name, mutant, our, their))

    def resumed(self, path: str) -> Theirs:
        """Resume from a save, and compare with the undamaged one."""
        from tests.differential.resumes.observed import differing

        try:
            with limited(NBYTES, SECONDS):
                seen = self.trainer.resume(path)
        except OutOfTime:
            return Theirs("OutOfTime")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its answer; DCP's own are no Exception
            return Theirs(_said(error))
        return Theirs("", differing(self.sound, seen))


def _said(error: BaseException) -> str:
    """An error in a line; DCP's begins with the traceback of each rank."""
    name, text = type(error).__name__, str(error).strip()
    if name == "CheckpointException":
        text = text.splitlines()[-1]
    return f"{name}: {text}"[:300].replace("\n", " ")


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
    logging.disable(logging.ERROR)
    folder = tempfile.mkdtemp(prefix="resumes-")
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        bench = Bench(name, folder)
        for number in range(start, stop):
            connection.send((bench.judged(seed, number, lambda lost: connection.send((lost, False))), True))
        connection.send((None, True))
    except BaseException as error:  # noqa: BLE001 - told to whoever waits
        connection.send((f"{type(error).__name__}: {error}", True))
        sys.exit(1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(name: str, seed: int, mutants: int) -> Iterator[Judged]:
    """All mutants of a seed; one in which the worker dies or hangs counts as raising."""
    at = 0
    while at < mutants:
        for judged in _worker(name, seed, at, mutants):
            at = judged.number + 1
            yield judged


def _worker(name: str, seed: int, start: int, stop: int) -> Iterator[Judged]:
    """What one process gets done, and the mutant that took it down."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, seed, start, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    lost: Judged | None = None
    try:
        while mine.poll(HANGS_SECONDS):
            said, final = mine.recv()
            if said is None:
                return
            if isinstance(said, str):
                raise RuntimeError(said)  # noqa: TRY004 - what the worker died of
            lost = None if final else said
            if final:
                yield said
    except EOFError:
        pass
    finally:
        process.join(5)
        process.kill()
        process.join()
        mine.close()
    if lost is None:
        raise RuntimeError("a worker died outside of a loader")
    yield lost

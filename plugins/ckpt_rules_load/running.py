"""Starts the process of `child.py`, waits for its answers, and starts another for the rest where a file was its end."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import IO, Any

from ckpt_rules import FactUnavailable
from ckpt_rules_load import child as program

MOST_DEATHS = 5
"""Files that may kill the loader before the rest is given up: each costs another start of some seconds."""

START_SECONDS = 120
_KEPT = 2_000
_GRACE = 5.0
_INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
}


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What a loader may take for one file.

    memory:  MiB of address space besides the bytes of the file; only Linux holds it
    cpu:     seconds of computing, besides one for each 10 MiB of the file
    seconds: on the clock, besides one for each 10 MiB of the file
    """

    memory: int
    cpu: int
    seconds: float


@dataclass(frozen=True, slots=True)
class File:
    """A file to load.

    path: relative to the checkpoint
    full: where it lies
    size: bytes
    """

    path: str
    full: str
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one file.

    error: type and text of what the loader raised, or None
    death: what ended the loader's process while it had the file, or None
    """

    path: str
    error: str | None = None
    death: str | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of all files; `untried` are those left when too many had killed the loader."""

    found: tuple[Answer, ...]
    untried: tuple[str, ...] = ()


def load_all(loader: str, files: Sequence[File], limits: LoadLimits) -> Answers:
    """Hand files to a loader, one process for all that it survives; FactUnavailable where it is not installed.

    loader: `torch.load` or `safe_open`
    """
    found: list[Answer] = []
    while len(found) < len(files):
        if sum(answer.death is not None for answer in found) >= MOST_DEATHS:
            break
        found += _one_process(loader, files[len(found) :], limits)
    return Answers(tuple(found), tuple(file.path for file in files[len(found) :]))


def _one_process(loader: str, files: Sequence[File], limits: LoadLimits) -> list[Answer]:
    """Answers to the first files, at least one; to fewer than all only where the last one was the process's end."""
    found: list[Answer] = []
    with _started(loader, files, limits) as child:
        _wait_until_ready(child, loader)
        for file in files:
            seconds = limits.seconds + file.size / program.BYTES_PER_SECOND
            try:
                event = child.event(seconds)
                if event is not None:
                    event = child.event(seconds)
            except TimeoutError:
                found.append(Answer(file.path, death=f"it did not finish within {seconds:,.1f} s"))
                break
            if event is None:
                found.append(Answer(file.path, death=child.cause_of_death(limits)))
                break
            found.append(Answer(file.path, error=event["error"]))
    return found


def _wait_until_ready(child: _Child, loader: str) -> None:
    try:
        event = child.event(START_SECONDS)
    except TimeoutError:
        raise FactUnavailable(f"{loader} can't be run: importing it took more than {START_SECONDS} s") from None
    if event is None:
        raise FactUnavailable(f"{loader} can't be run: its process ended at the start: {child.last_words()}")
    if "absent" in event:
        raise FactUnavailable(f"{loader} can't be run: {event['absent']}")


@contextmanager
def _started(loader: str, files: Sequence[File], limits: LoadLimits) -> Iterator[_Child]:
    """The process, which does not outlive the block."""
    if not sys.executable:
        raise FactUnavailable(f"{loader} can't be run: the path of the Python interpreter is not known")
    request = {
        "loader": loader,
        "files": [(file.full, file.size) for file in files],
        "memory": limits.memory,
        "cpu": limits.cpu,
    }
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(request).encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own file, and no shell
                [sys.executable, "-I", "-B", program.__file__],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ} | _SETTINGS,
                cwd=os.sep,
            )
        except OSError as error:
            raise FactUnavailable(
                f"{loader} can't be run: {sys.executable} can't be started: {error.strerror}"
            ) from None
    with process, selectors.DefaultSelector() as pipes:
        try:
            yield _Child(process, pipes)
        finally:
            process.kill()


class _Child:
    """The process as its parent sees it: events on one pipe, prose on the other, of which the end is kept."""

    def __init__(self, process: subprocess.Popen[bytes], pipes: selectors.BaseSelector) -> None:
        self._process = process
        self._lines = b""
        self._prose = b""
        self._pipes = pipes
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            self._pipes.register(pipe, selectors.EVENT_READ)

    def event(self, seconds: float) -> dict[str, Any] | None:
        """The next event, None where there will be none; TimeoutError where it takes longer."""
        end = monotonic() + seconds
        while b"\n" not in self._lines:
            if self._process.stdout not in self._open():
                return None
            ready = self._pipes.select(max(0.0, end - monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                self._take(key.fileobj)  # type: ignore[arg-type]
        line, _, self._lines = self._lines.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def _open(self) -> list[object]:
        return [key.fileobj for key in self._pipes.get_map().values()]

    def _take(self, pipe: IO[bytes]) -> None:
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            self._pipes.unregister(pipe)
        elif pipe is self._process.stdout:
            self._lines += chunk
        else:
            self._prose = (self._prose + chunk)[-_KEPT:]

    def cause_of_death(self, limits: LoadLimits) -> str:
        """Why the process ended, and the last line that it wrote."""
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return "it closed its output and continued"
        if code == -signal.SIGXCPU:
            return f"it used more CPU time than {limits.cpu} s"
        cause = f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        said = self.last_words()
        return f"{cause} ({said})" if said else cause

    def last_words(self) -> str:
        """The last line that the process wrote to standard error, or ''."""
        while self._process.stderr in self._open() and self._pipes.select(0.1):
            self._take(self._process.stderr)  # type: ignore[arg-type]
        lines = [line.strip() for line in self._prose.decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

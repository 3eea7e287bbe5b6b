"""How far the reading of every byte is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ckpt_rules.cli.output import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 10.0
_BAR_SECONDS = 0.1
_GB = 1e9


def shown_progress(*, quiet: bool) -> NoProgress:
    """What to show on stderr: nothing where the user wants quiet."""
    if quiet or sys.stderr is None:
        return NoProgress()
    return Bar() if sys.stderr.isatty() else Lines()


class NoProgress:
    """Called with the bytes read and the bytes to read, from any thread; shows nothing."""

    def __call__(self, read: int, total: int) -> None:
        """Take note of how far the reading is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing on the screen."""


class _Timed(NoProgress):
    """Shows something no more often than every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = self._shown = monotonic()
        self._lock = threading.Lock()

    def __call__(self, read: int, total: int) -> None:
        """Show it, unless something was shown a moment ago or another thread is about to."""
        now = monotonic()
        if now - self._shown >= self._seconds and self._lock.acquire(blocking=False):
            try:
                self._shown = now
                self.show(read, total, now - self._started)
            finally:
                self._lock.release()

    def show(self, read: int, total: int, seconds: float) -> None:
        """Show how many bytes were read in so many seconds."""
        raise NotImplementedError


class Lines(_Timed):
    """A line of text every ten seconds."""

    def __init__(self) -> None:
        super().__init__(LINE_SECONDS)

    def show(self, read: int, total: int, seconds: float) -> None:
        """`read 3.2 of 20.0 GB, 1.1 GB/s, 15 s left`."""
        rate = read / seconds
        left = f", {(total - read) / rate:,.0f} s left" if rate else ""
        say(f"read {read / _GB:,.1f} of {total / _GB:,.1f} GB, {rate / _GB:,.2f} GB/s{left}")


class Bar(_Timed):
    """A bar on the terminal with bytes, rate and remaining time, gone when all is read."""

    def __init__(self) -> None:
        super().__init__(_BAR_SECONDS)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def show(self, read: int, total: int, seconds: float) -> None:
        """Move the bar; the first time, draw it."""
        if self._bar is None or self._task is None:
            self._bar, self._task = _drawn(total)
        self._bar.update(self._task, completed=read, total=total)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the bar away."""
        with self._lock:
            if self._bar is not None:
                with suppress(OSError, ValueError):  # nobody looks at it any more
                    self._bar.stop()


def _drawn(total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("reading every byte"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    bar.start()
    return bar, bar.add_task("", total=total)

"""A limit in seconds for a piece of a plugin's code, after which an exception is raised inside it.

In the main thread a timer of the system raises it, which ends a loop, a regular expression that backtracks, a sleep, and a
read that the system lets go of. In any other thread a second thread asks the interpreter to raise it, which ends a loop in
Python and nothing else. Whatever neither can reach continues past its limit: a C library that computes without looking up, a
read from a file system that hangs.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any, Protocol, TypeVar

from ckpt_rules.errors import UsageError

T = TypeVar("T")

LONGEST = 1_000_000.0
AGAIN = 0.05
"""Seconds after which the exception is raised again where it was lost, in a `__del__` or an `except` that takes anything."""


class TimeLimitExceeded(BaseException):
    """Raised inside code that takes too long; no `Exception`, lest the code take it for a fault of its own."""

    def __str__(self) -> str:
        return "it took longer than the rule timeout"


def checked(seconds: float | None) -> float | None:
    """A limit that a user gave; `UsageError` where it is none."""
    if seconds is None or (isinstance(seconds, int | float) and 0 < seconds <= LONGEST):
        return seconds
    raise UsageError(
        f"the rule timeout is {seconds!r}; it must be a number of seconds, above 0 and at most {LONGEST:,.0f}"
    )


def limited(seconds: float | None, work: Callable[[], T]) -> T:
    """The result of `work()`; `TimeLimitExceeded` where it takes longer, whatever it makes of that. None is not a limit."""
    if seconds is None:
        return work()
    alarm = _alarm()
    alarm.start(seconds)
    try:
        result = work()
    except Exception as error:
        if alarm.rang:  # the work caught the exception and raised another
            raise TimeLimitExceeded from error
        raise
    finally:
        while True:
            try:
                alarm.stop()
                break
            except TimeLimitExceeded:  # it rang once more before it was stopped
                continue
    if alarm.rang:
        raise TimeLimitExceeded
    return result


class _Alarm(Protocol):
    rang: bool

    def start(self, seconds: float) -> None: ...

    def stop(self) -> None: ...


def _alarm() -> _Alarm:
    in_main = threading.current_thread() is threading.main_thread()
    # None: a handler that was not set by Python, and that we could not put back.
    return _Timer() if in_main and signal.getsignal(signal.SIGALRM) is not None else _Watchdog()


class _Timer:
    """SIGALRM. What the process had set up for it is put back; a timer that it had running rings late, if need be."""

    rang = False

    def start(self, seconds: float) -> None:
        self._started = monotonic()
        self._handler: Any = signal.signal(signal.SIGALRM, self._ring)
        self._timer = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        delay, interval = self._timer
        if delay:
            signal.setitimer(signal.ITIMER_REAL, max(delay - (monotonic() - self._started), 1e-6), interval)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.rang = True
        raise TimeLimitExceeded


class _Watchdog:
    """A thread that waits. The exception is raised at the next line of Python that the watched thread comes to."""

    rang = False

    def start(self, seconds: float) -> None:
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(seconds,), daemon=True, name="ckpt-rules-watchdog")
        self._thread.start()

    def _watch(self, seconds: float) -> None:
        while not self._over.wait(seconds):
            self.rang = True
            _raise_in(self._watched, TimeLimitExceeded)
            seconds = AGAIN

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        _raise_in(self._watched, None)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread; None takes back one that is asked for and not yet raised."""
    import ctypes

    asked = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), asked)

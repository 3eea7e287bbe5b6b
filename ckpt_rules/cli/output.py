"""Where text goes: to standard output as it comes, or to a file that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import TextIO

from ckpt_rules.errors import UsageError
from ckpt_rules.printable import printable
from ckpt_rules.storage import reason
from ckpt_rules.writing import replace_file, write_all

INTERRUPTED = 130
"""The exit code of a process that ended by ^C, as shells give it."""

_KEPT_NBYTES, _BLOCK_NBYTES = 8 << 20, 1 << 16
"""Of a report for a file: how much is kept in memory till all of it is there, and how much is written at a time."""


def emit(pieces: Iterable[str], output: str | None = None) -> None:
    """Write every piece to the file `output`, or to standard output."""
    if output is None:
        to_stream(pieces, sys.stdout)
    else:
        to_file(pieces, output)


def say(text: str) -> None:
    """Print to stderr line by line, with nothing in it that a terminal would take for a command."""
    with contextlib.suppress(UsageError):  # nobody is left to be told
        to_stream([printable(line, limit=None) + "\n" for line in text.splitlines()], sys.stderr)


def to_stream(pieces: Iterable[str], stream: TextIO | None) -> None:
    """Write each piece as it comes.

    A reader that goes away (`| head`) is not an error: the pieces are still computed, for their sake the exit code means what
    it always means.
    """
    gone = stream is None
    for piece in pieces:
        if gone or stream is None:
            continue
        try:
            _put(piece, stream)
        except BrokenPipeError:
            gone = True
            silence(stream)
        except (OSError, ValueError) as error:  # ValueError: a plugin closed it
            silence(stream)
            words = reason(error) if isinstance(error, OSError) else "it is closed"
            raise UsageError(f"standard output can't be written to: {words}") from None


def _put(text: str, stream: TextIO) -> None:
    """Write all of the text. What the encoding lacks is escaped."""
    raw = getattr(stream, "buffer", None)
    if raw is None:
        stream.write(text)
        stream.flush()
        return
    stream.flush()
    data = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    while data:
        # With PYTHONUNBUFFERED nothing lies between us and the system, which may take a part only, as a disk that fills up.
        taken = raw.write(data)
        if taken is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = data[taken:]
    raw.flush()


def silence(stream: TextIO) -> None:
    """Let whatever is still written to a stream, or lies in its buffer, go nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return


def to_file(pieces: Iterable[str], output: str) -> None:
    """Write UTF-8 to a new file beside `output` and put it in its place; on any error `output` is left as it was.

    A device or pipe is written to directly: there is nothing to replace. A link is followed, not replaced.
    """
    # The new file comes last: where the report lies in what it reports on, it is not to be seen there half written.
    with SpooledTemporaryFile(_KEPT_NBYTES) as spooled:
        for piece in pieces:
            with _told_of(output):
                spooled.write(piece.encode("utf-8", "backslashreplace"))
        spooled.seek(0)
        with _told_of(output):
            path = os.path.realpath(output)
            if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
                write_all(os.open(path, os.O_WRONLY), _in_blocks(spooled))
            else:
                replace_file(path, _in_blocks(spooled))


def _in_blocks(file: SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, _BLOCK_NBYTES), b"")


@contextlib.contextmanager
def _told_of(output: str) -> Iterator[None]:
    """UsageError where the file can't be written."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{output} can't be written: {words}") from None

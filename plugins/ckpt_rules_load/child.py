"""The process in which a real loader takes files, one after the other, under limits. Run as a file; it imports no ckpt-rules.

A request, one JSON object, comes in on standard input: `loader`, `files` (path and bytes of each), `memory` (MiB) and `cpu`
(seconds). On standard output go JSON lines: `absent` (why there is no loader) or `ready`, then for each file its number as
`began` and, unless the process dies of it, as `ended` with the loader's `error` or null.
"""

from __future__ import annotations

import json
import math
import os
import resource
import stat
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, TextIO

OLDEST_TORCH = (2, 10)
"""Before it, a pickle of nothing but allowed names could corrupt memory (CVE-2026-24747)."""

MIB = 1 << 20
BYTES_PER_SECOND = 10 * MIB
"""What a slow disk gives: seconds that a large file is given besides."""

_LONGEST_ERROR = 10_000
_ZIP = b"PK\x03\x04"

Load = Callable[[str], object]


class AbsentError(Exception):
    """There is no loader; its text says why."""


def main() -> None:
    """Answer one request and end without the tear-down of what was imported."""
    request = json.load(sys.stdin)
    answers = _own_streams()
    _limit(resource.RLIMIT_CORE, 0)
    warnings.simplefilter("ignore")
    try:
        load = LOADERS[request["loader"]]()
    except AbsentError as absent:
        _say(answers, absent=str(absent))
    else:
        _limit(resource.RLIMIT_FSIZE, 0)
        _say(answers, ready=True)
        _load_all(load, request, answers)
    os._exit(0)


def _load_all(load: Load, request: dict[str, Any], answers: TextIO) -> None:
    held = _address_space()
    for number, (path, size) in enumerate(request["files"]):
        _say(answers, began=number)
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + request["cpu"] + size / BYTES_PER_SECOND))
        if held is not None:
            _limit(resource.RLIMIT_AS, held + request["memory"] * MIB + size)
        error = None
        try:
            load(path)
        except Exception as refused:  # noqa: BLE001 - whatever a loader raises is its answer
            error = _words(refused)
        _say(answers, ended=number, error=error)


def _torch_loader() -> Load:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise AbsentError(_why(error, "torch")) from None
    version = str(torch.__version__)
    if tuple(map(int, version.split(".")[:2])) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise AbsentError(f"torch {version} is installed; untrusted files are given only to torch {oldest} or newer")
    torch.set_num_threads(1)

    def load(path: str) -> None:
        # Never anything but weights_only=True: said here, it outranks TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD.
        torch.load(path, weights_only=True, mmap=_first_bytes(path) == _ZIP, map_location="cpu")

    return load


def _safetensors_loader() -> Load:
    try:
        from safetensors import safe_open
    except ModuleNotFoundError as error:
        raise AbsentError(_why(error, "safetensors")) from None

    def load(path: str) -> None:
        _first_bytes(path)
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                file.get_slice(name).get_shape()

    return load


LOADERS: dict[str, Callable[[], Load]] = {"torch.load": _torch_loader, "safe_open": _safetensors_loader}


def _first_bytes(path: str) -> bytes:
    """The start of a regular file; OSError for anything else, which a loader might wait for without end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("it is no longer a regular file")
        return os.read(fd, len(_ZIP))
    finally:
        os.close(fd)


def _why(error: ModuleNotFoundError, package: str) -> str:
    needs = "" if error.name == package else f" whole: there is no {error.name}"
    return f"{package} is not installed{needs}"


def _words(error: Exception) -> str:
    text = str(error)[:_LONGEST_ERROR]
    return f"{type(error).__name__}: {text}" if text.strip() else type(error).__name__


def _own_streams() -> TextIO:
    """The stream for answers. What a loader prints goes to standard error, and what it asks for is not there."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return answers


def _say(answers: TextIO, **event: object) -> None:
    answers.write(json.dumps(event) + "\n")
    answers.flush()


def _limit(kind: int, amount: int) -> None:
    """Lower or raise a limit, as far as the hard one allows."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _address_space() -> int | None:
    """Bytes of address space in use; None where the system does not tell, and the limit on it would mean nothing."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None


if __name__ == "__main__":
    main()

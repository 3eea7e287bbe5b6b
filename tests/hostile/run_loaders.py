"""Loads each hostile sample as a victim would, in a child of its own, and prints as JSON what became of it.

    python -m tests.hostile.run_loaders DIRECTORY

For each sample: whether it acted, and the loader's error or an empty text.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np  # noqa: F401 - the children shall not each import it again
import torch  # noqa: F401

from tests.hostile.programs import MARKER
from tests.hostile.samples import HOSTILE, LOADERS, Sample

SECONDS = 20


def main() -> None:
    home = Path(sys.argv[1])
    answers = {sample.name: _load(sample, home / sample.name) for sample in HOSTILE if sample.loader}
    json.dump(answers, sys.stdout)


def _load(sample: Sample, folder: Path) -> tuple[bool, str]:
    file = sample.write(folder)
    if pid := os.fork():
        os.waitpid(pid, 0)
    else:
        with contextlib.suppress(BaseException):
            _victim(sample.loader, file)
        os._exit(0)
    error = (folder / "error").read_text(encoding="utf-8")
    return _acted(folder, 0 if error.startswith("ModuleNotFoundError") else 2), error


def _victim(loader: str, file: Path) -> None:
    os.chdir(file.parent)
    signal.alarm(SECONDS)
    quiet = os.open(os.devnull, os.O_RDWR)
    going_on = os.memfd_create("input")  # a debugger that asks what to do is told to continue
    os.write(going_on, b"c\n" * 3)
    os.lseek(going_on, 0, os.SEEK_SET)
    for stream, into in ((going_on, 0), (quiet, 1), (quiet, 2)):
        os.dup2(stream, into)
    error = ""
    warnings.simplefilter("ignore")
    try:
        exec(LOADERS[loader], {"io": io, "path": str(file), "data": file.read_bytes()})
    except BaseException as raised:  # noqa: BLE001 - whatever ends a load comes after what it has done
        error = f"{type(raised).__name__}: {raised}"
    Path("error").write_text(error, encoding="utf-8")


def _acted(folder: Path, seconds: float) -> bool:
    """Whether the marker is there, after a moment for processes that were started and not waited for."""
    until = time.monotonic() + seconds
    while not (folder / MARKER).exists() and time.monotonic() < until:
        time.sleep(0.02)
    return (folder / MARKER).exists()


if __name__ == "__main__":
    main()

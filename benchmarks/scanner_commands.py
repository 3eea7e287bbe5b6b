"""How each scanner is called, and what its answer means.

Each is called as its users call it, with its defaults, on one file or one directory, in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

Ended = subprocess.CompletedProcess[str]


class Answer(StrEnum):
    """What a scanner says of a file."""

    ERROR = "error"
    WARNING = "warning"
    REFUSED = "refused"  # it does not pass the file, and says no more than that it could not look into it
    SKIPPED = "skipped"  # it says that it left the file out
    NOTHING = "—"
    CRASHED = "crashed"
    ENDLESS = "no end"
    ACTED = "EXECUTED IT"

    @property
    def is_report(self) -> bool:
        return self in {Answer.ERROR, Answer.WARNING}


class Scanner(NamedTuple):
    """A scanner: its name, its command for a file or a directory, and how to read what it says.

    last: what it prints when it has come to the end, and not when it stops on the way
    whole: whether one process takes a directory; else it takes one for each file
    """

    name: str
    command: Callable[[Path], tuple[str, ...]]
    read: Callable[[Ended], Answer]
    last: str = ""
    whole: bool = True


def ckpt_rules() -> Scanner:
    """Our own command, which looks at the directory that holds the file."""
    argv = (str(Path(sys.executable).with_name("ckpt-rules")), "verify", "--format", "json")
    return Scanner(
        "ckpt-rules", lambda path: (*argv, str(path if path.is_dir() else path.parent)), _read_ckpt_rules, '"verdict"'
    )


def _read_ckpt_rules(ended: Ended) -> Answer:
    """Only what concerns the file itself: that there is no optimizer beside it is not an answer to whether it is hostile."""
    findings = [f for outcome in json.loads(ended.stdout)["outcomes"] for f in outcome["findings"]]
    found = {(f["severity"], f["rule"]) for f in findings}
    about = ("pickle/", "zip/", "safetensors/", "weights/broken-")
    named = {severity for severity, rule in found if rule.startswith(about) and rule != "pickle/limit"}
    if "error" in named:
        return Answer.ERROR
    if found & {("error", "pickle/limit"), ("error", "files/wrong-format")}:
        return Answer.REFUSED
    return Answer.WARNING if "warning" in named else Answer.NOTHING


def _by_exit_code(codes: dict[int, Answer]) -> Callable[[Ended], Answer]:
    return lambda ended: codes.get(ended.returncode, Answer.CRASHED)


def picklescan(path: str, *more: str) -> Scanner:
    """Suspicious names, which it counts and passes, are warnings; `--strict` makes errors of them."""
    by_code = _by_exit_code({0: Answer.NOTHING, 1: Answer.ERROR, 2: Answer.REFUSED})

    def read(ended: Ended) -> Answer:
        suspicious = re.search(r"Suspicious globals: [1-9]", ended.stdout)
        return Answer.WARNING if ended.returncode == 0 and suspicious else by_code(ended)

    return Scanner(
        " ".join(("picklescan", *more)), lambda target: (path, *more, "-p", str(target)), read, "SCAN SUMMARY"
    )


def modelscan(path: str) -> Scanner:
    codes = {0: Answer.NOTHING, 1: Answer.ERROR, 2: Answer.REFUSED, 3: Answer.SKIPPED}
    return Scanner("modelscan", lambda target: (path, "-p", str(target)), _by_exit_code(codes), "--- Summary ---")


_FICKLING_ZIP = """
import os, sys
from fickling.loader import scan_zip_archive
results = scan_zip_archive(sys.argv[1], graceful=True, json_output_path=os.devnull).values()
unsafe = any(result.results and not result.is_safe for result in results)
sys.exit(1 if unsafe else 2 if any(result.errors for result in results) else 0)
"""


def fickling(path: str) -> Scanner:
    """Its command takes bare pickles; zip files are given to its function for them, which the command uses on hubs."""

    def command(target: Path) -> tuple[str, ...]:
        if zipfile.is_zipfile(target):
            return (str(Path(path).with_name("python")), "-c", _FICKLING_ZIP, str(target))
        return (path, "--check-safety", "--json-output", "/dev/null", str(target))

    codes = {0: Answer.NOTHING, 1: Answer.ERROR, 2: Answer.REFUSED}
    return Scanner("fickling", command, _by_exit_code(codes), whole=False)


def modelaudit(path: str) -> Scanner:
    """Without its cache, which would answer the second time; its telemetry is turned off."""
    quiet = ("env", "PROMPTFOO_DISABLE_TELEMETRY=1", "NO_ANALYTICS=1")
    argv = (*quiet, path, "scan", "--no-cache", "--format", "json")
    return Scanner("modelaudit", lambda target: (*argv, str(target)), _read_modelaudit, '"success"')


def _read_modelaudit(ended: Ended) -> Answer:
    severities = {issue["severity"] for issue in json.loads(ended.stdout)["issues"]}
    if "critical" in severities:
        return Answer.ERROR
    if "warning" in severities:
        return Answer.WARNING
    return Answer.NOTHING if ended.returncode == 0 else Answer.REFUSED


OTHERS: dict[str, Callable[[str], tuple[Scanner, ...]]] = {
    "picklescan": lambda path: (picklescan(path), picklescan(path, "--strict")),
    "modelscan": lambda path: (modelscan(path),),
    "fickling": lambda path: (fickling(path),),
    "modelaudit": lambda path: (modelaudit(path),),
}


def version(name: str, path: str) -> str:
    """The version of a distribution in the environment that this command belongs to."""
    asks = f"import importlib.metadata as m; print(m.version({name!r}))"
    python = str(Path(path).with_name("python"))
    return subprocess.run([python, "-c", asks], capture_output=True, text=True, check=True).stdout.strip()


def ask(scanner: Scanner, target: Path, marker: str, seconds: float = 120) -> Answer:
    """What it says of one file; run in an empty directory, so that a payload that is executed leaves its marker there."""
    with tempfile.TemporaryDirectory() as here:
        try:
            ended = subprocess.run(
                scanner.command(target), cwd=here, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return Answer.ENDLESS
        if any((folder / marker).exists() for folder in (Path(here), target.parent)):
            return Answer.ACTED
    try:
        return Answer.CRASHED if ended.stderr.startswith("Traceback") else scanner.read(ended)
    except (json.JSONDecodeError, KeyError):
        return Answer.CRASHED

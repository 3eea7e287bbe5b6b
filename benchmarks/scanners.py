r"""What scanners of pickles see, and how long they take, next to ckpt-rules: the tables of docs/scanners.md.

    python benchmarks/scanners.py picklescan=/path/to/picklescan modelscan=… fickling=… modelaudit=… \
        --checkpoint DIRECTORY --markdown docs/scanners-results.md

Each scanner is called as its users call it, on one file, in a process of its own, with nothing but its defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hostile_samples import CLEAN, HOSTILE, Sample, write

ROUNDS = 3
OURS = ("pickle/*", "zip/*", "safetensors/*", "files/wrong-format", "weights/broken-*")
# modelaudit calls home otherwise; it can't from here, and waits for that.
ENVIRONMENT = os.environ | {"PROMPTFOO_DISABLE_TELEMETRY": "1", "NO_ANALYTICS": "1", "COLUMNS": "200"}
SEEN, WARNED, MISSED, REFUSED, CRASHED = "error", "warning", "—", "can't read", "crashed"


class Scanner(NamedTuple):
    """How a scanner is called, and what its answer means."""

    name: str
    command: tuple[str, ...]
    read: Callable[[subprocess.CompletedProcess[str]], str]


def _by_exit_code(codes: dict[int, str]) -> Callable[[subprocess.CompletedProcess[str]], str]:
    def read(ended: subprocess.CompletedProcess[str]) -> str:
        if "Traceback (most recent call last)" in ended.stderr:
            return CRASHED
        return codes.get(ended.returncode, CRASHED)

    return read


def _ours(ended: subprocess.CompletedProcess[str]) -> str:
    report = json.loads(ended.stdout)
    severities = {f["severity"] for o in report["outcomes"] for f in o["findings"]}
    return SEEN if "error" in severities else WARNED if "warning" in severities else MISSED


SCANNERS: dict[str, tuple[tuple[str, ...], Callable[[subprocess.CompletedProcess[str]], str]]] = {
    "picklescan": (("-p",), _by_exit_code({0: MISSED, 1: SEEN, 2: REFUSED})),
    "modelscan": (("-p",), _by_exit_code({0: MISSED, 1: SEEN, 2: REFUSED, 3: REFUSED})),
    "fickling": (("--check-safety", "--json-output", os.devnull), _by_exit_code({0: MISSED, 1: SEEN})),
    "modelaudit": (("scan",), _by_exit_code({0: MISSED, 1: SEEN, 2: REFUSED})),
}


def main() -> None:
    options = _options()
    scanners = [_ourselves(), *(_scanner(given) for given in options.scanners)]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write(home)
        lines = [*_answers(scanners, home), "", *_times(scanners, home, options.checkpoint)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scanners", nargs="*", metavar="NAME=PATH", help=f"of {', '.join(SCANNERS)}")
    parser.add_argument("--checkpoint", type=Path, help="a clean checkpoint directory, to be timed as well")
    parser.add_argument("--markdown", help="write the tables to this file")
    return parser.parse_args()


def _ourselves() -> Scanner:
    select = (part for glob in OURS for part in ("--select", glob))
    command = (str(Path(sys.executable).with_name("ckpt-rules")), "verify", "--format", "json", *select)
    return Scanner("ckpt-rules", command, _ours)


def _scanner(given: str) -> Scanner:
    name, _, path = given.partition("=")
    arguments, read = SCANNERS[name]
    return Scanner(name, (path, *arguments), read)


def _run(scanner: Scanner, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (*scanner.command, str(target)), capture_output=True, text=True, check=False, timeout=600, env=ENVIRONMENT
    )


def _answers(scanners: list[Scanner], home: Path) -> list[str]:
    """A row for each sample; ckpt-rules looks at the directory that holds it, the others at the file."""
    lines = []
    for kind, samples in (("hostile", HOSTILE), ("clean", CLEAN)):
        lines += [
            f"| {kind} file | | {' | '.join(s.name for s in scanners)} |",
            "| --- | --- |" + " --- |" * len(scanners),
        ]
        found = [[_answer(scanner, home, kind, sample) for scanner in scanners] for sample in samples]
        lines += [f"| `{s.name}` | {s.says} | {' | '.join(row)} |" for s, row in zip(samples, found, strict=True)]
        counts = [sum(answer in (SEEN, WARNED) for answer in column) for column in zip(*found, strict=True)]
        what = "reported" if kind == "hostile" else "false alarms"
        lines += [f"| **{what}** | of {len(samples)} | {' | '.join(map(str, counts))} |", ""]
    return lines


def _answer(scanner: Scanner, home: Path, kind: str, sample: Sample) -> str:
    folder = home / kind / sample.name.replace(".", "_")
    return scanner.read(_run(scanner, folder if scanner.name == "ckpt-rules" else folder / sample.name))


def _times(scanners: list[Scanner], home: Path, checkpoint: Path | None) -> list[str]:
    lines = ["| process time, median of 3, ratio to ckpt-rules | " + " | ".join(s.name for s in scanners) + " |"]
    lines.append("| --- |" + " --- |" * len(scanners))
    small = home / "clean" / "model_pt"
    targets = [("one file of 3 kB", small, small / "model.pt")]
    if checkpoint:
        largest = max(checkpoint.glob("*.pth"), key=lambda p: p.stat().st_size)
        nbytes = largest.stat().st_size
        targets.append(
            (f"a training state of {nbytes / 1e6:,.0f} MB, with its weights for ckpt-rules", checkpoint, largest)
        )
    for what, folder, file in targets:
        seconds = [_seconds(s, folder if s.name == "ckpt-rules" else file) for s in scanners]
        cells = (f"{t:.2f} s ({t / seconds[0]:.1f})" for t in seconds)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def _seconds(scanner: Scanner, target: Path) -> float:
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        _run(scanner, target)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()

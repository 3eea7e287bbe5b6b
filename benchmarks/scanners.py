"""What scanners of pickles see, and how long they take, next to ckpt-rules: docs/scanners-results.md.

    PYTHONPATH=. python benchmarks/scanners.py picklescan=/path/to/picklescan modelscan=… fickling=… modelaudit=… \
        --markdown docs/scanners-results.md

The samples are those of tests/hostile; each scanner has an environment of its own, or shares one where their dependencies
agree, and torch in it as on a machine that trains.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import NamedTuple

from measure import Command, run_all
from scanner_commands import OTHERS, Answer, Scanner, ask, ckpt_rules, version

from tests.hostile.clean import CLEAN
from tests.hostile.programs import MARKER
from tests.hostile.samples import HOSTILE, Sample

MB = 1_000_000
LARGE_LAYERS = 10  # of 2048 x 2048, with AdamW's two moments: 503 MB


class Asked(NamedTuple):
    """A sample and what each scanner says of it."""

    sample: Sample
    answers: list[Answer]


class Time(NamedTuple):
    """Median seconds, and whether the runs came to their end."""

    seconds: float
    whole: bool


Files = dict[str, list[tuple[Sample, Path]]]
"""The samples of each kind, and where they lie."""


def main() -> None:
    options = _options()
    given = dict(part.split("=", 1) for part in options.scanners)
    scanners = [ckpt_rules(), *(s for name, path in given.items() for s in OTHERS[name](path))]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        home = Path(scratch)
        files = {
            kind: _write(home / "samples" / kind, samples) for kind, samples in (("hostile", HOSTILE), ("clean", CLEAN))
        }
        asked = {kind: _ask(scanners, written) for kind, written in files.items()}
        times = _measure(scanners, home, files, options.rounds)
    versions = ", ".join(f"{name} {version(name, path)}" for name, path in given.items())
    text = "\n".join(_page(scanners, versions, asked, times, options.rounds)) + "\n"
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scanners", nargs="*", metavar="NAME=PATH", help=f"of {', '.join(OTHERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each command, after one to warm up")
    parser.add_argument("--scratch", help="a directory with 1 GB to spare; the system's own otherwise")
    parser.add_argument("--markdown", help="write the tables to this file")
    return parser.parse_args()


def _write(home: Path, samples: tuple[Sample, ...]) -> list[tuple[Sample, Path]]:
    """Each sample in a folder of its own, but for those whose library is not installed here."""
    written = []
    for number, sample in enumerate(samples):
        try:
            written.append((sample, sample.write(home / f"sample-{number:03d}")))
        except ModuleNotFoundError as missing:
            print(f"{sample.name} is left out: {missing}", file=sys.stderr)
    return written


def _ask(scanners: list[Scanner], written: list[tuple[Sample, Path]]) -> list[Asked]:
    return [Asked(sample, [ask(scanner, file, MARKER) for scanner in scanners]) for sample, file in written]


def _measure(scanners: list[Scanner], home: Path, files: Files, rounds: int) -> dict[str, list[Time]]:
    """What each scanner takes for a small file, for the samples in one run, and for a large clean file; all in turn."""
    clean, hostile = ([file for _, file in files[kind]] for kind in ("clean", "hostile"))
    small = next(file for file in clean if file.name == "model.pt")
    large = home / "large" / "training_state.pth"
    _write_large(large)
    kinds = {
        f"one file of {small.stat().st_size / 1000:,.0f} kB": (small, [small]),
        f"a directory of the {len(clean)} clean samples": (home / "samples" / "clean", clean),
        f"a directory of all {len(clean + hostile)} samples": (home / "samples", clean + hostile),
        f"one clean training state of {large.stat().st_size / MB:,.0f} MB": (large, [large]),
    }
    timed = {kind: [_command(scanner, kind, *targets) for scanner in scanners] for kind, targets in kinds.items()}
    pairs = [pair for row in timed.values() for pair in zip(scanners, row, strict=True)]
    whole = {command.name for scanner, command in pairs if _comes_to_its_end(scanner, command)}
    costs = run_all([command for _, command in pairs], rounds)
    return {kind: [Time(costs[c.name].median, c.name in whole) for c in row] for kind, row in timed.items()}


def _command(scanner: Scanner, kind: str, target: Path, files: list[Path]) -> Command:
    """One process for one file or a directory; a shell that starts one after the other where there is no other way."""
    argv = scanner.command(target)
    if target.is_dir() and not scanner.whole:
        argv = ("sh", "-c", "; ".join(shlex.join(scanner.command(file)) for file in files))
    return Command(f"{scanner.name}, {kind}", argv, tuple(range(256)))


def _comes_to_its_end(scanner: Scanner, command: Command) -> bool:
    """A run that stops on the way is quick, and no measure of anything."""
    return scanner.last in subprocess.run(command.argv, capture_output=True, text=True, check=False).stdout


def _write_large(path: Path) -> None:
    import torch

    model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(LARGE_LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 2048)).sum().backward()
    optimizer.step()
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0, "global_step": 1}, path)


def _page(
    scanners: list[Scanner], versions: str, asked: dict[str, list[Asked]], times: dict[str, list[Time]], rounds: int
) -> Iterator[str]:
    names = [scanner.name for scanner in scanners]
    yield "# What scanners see: the tables"
    yield ""
    yield (
        f"Written by `benchmarks/scanners.py` in one run on {datetime.now(UTC):%Y-%m-%d}: ckpt-rules "
        f"{installed('ckpt-rules')}, {versions}; Python {platform.python_version()}, torch {installed('torch')}, "
        f"{os.cpu_count()} cores. [scanners.md](scanners.md) says how to read them."
    )
    yield from ("", "## In short", "")
    yield from _table(["", *names], _summary(asked))
    yield from ("", f"## Time, median of {rounds} runs of the whole process, ratio to ckpt-rules", "")
    yield from _table(["", *names], (_time_row(kind, of) for kind, of in times.items()))
    for kind, title in (("hostile", "Hostile files, and who acts on them"), ("clean", "Clean files")):
        acts = ["acts on"] if kind == "hostile" else []
        yield from ("", f"## {title}", "")
        rows = ([f"`{s.name}`", s.says, *([s.loader] if acts else []), *answers] for s, answers in asked[kind])
        yield from _table(["file", "", *acts, *names], rows)


def _summary(asked: dict[str, list[Asked]]) -> Iterator[list[str]]:
    for kind, answers in asked.items():
        columns = [Counter(column) for column in zip(*(of.answers for of in answers), strict=True)]
        for what, counted in (
            ("error", [Answer.ERROR]),
            ("warning", [Answer.WARNING]),
            ("refused", [Answer.REFUSED]),
            ("skipped", [Answer.SKIPPED]),
            ("not a word", [Answer.NOTHING]),
            ("crashed, or worse", [Answer.CRASHED, Answer.ENDLESS, Answer.ACTED]),
        ):
            yield [f"{kind}, {len(answers)}: {what}", *(str(sum(c[a] for a in counted)) for c in columns)]


def _time_row(kind: str, times: list[Time]) -> list[str]:
    ours = times[0].seconds
    return [kind, *(f"{t.seconds:.2f} s ({t.seconds / ours:.1f})" + ("" if t.whole else ", stopped") for t in times)]


def _table(headings: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * len(headings)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()

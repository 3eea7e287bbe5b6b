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
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import NamedTuple

from measure import Command, Cost, run_all
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


def main() -> None:
    options = _options()
    given = dict(part.split("=", 1) for part in options.scanners)
    scanners = [ckpt_rules(), *(s for name, path in given.items() for s in OTHERS[name](path))]
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        home = Path(scratch)
        files = {
            kind: _write(home / "samples", kind, samples) for kind, samples in (("hostile", HOSTILE), ("clean", CLEAN))
        }
        asked = {kind: _ask(scanners, written) for kind, written in files.items()}
        everything = [file for written in files.values() for _, file in written]
        rows = _measure(scanners, home, everything, options.rounds)
    versions = ", ".join(f"{name} {version(name, path)}" for name, path in given.items())
    text = "\n".join(_page(scanners, versions, asked, rows, options.rounds)) + "\n"
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


def _write(home: Path, kind: str, samples: tuple[Sample, ...]) -> list[tuple[Sample, Path]]:
    """Each sample in a folder of its own, but for those whose library is not installed here."""
    written = []
    for number, sample in enumerate(samples):
        try:
            written.append((sample, sample.write(home / f"{kind}-{number:03d}")))
        except ModuleNotFoundError as missing:
            print(f"{sample.name} is left out: {missing}", file=sys.stderr)
    return written


def _ask(scanners: list[Scanner], written: list[tuple[Sample, Path]]) -> list[Asked]:
    return [Asked(sample, [ask(scanner, file, MARKER) for scanner in scanners]) for sample, file in written]


def _measure(scanners: list[Scanner], home: Path, files: list[Path], rounds: int) -> dict[str, list[Cost]]:
    """What each scanner costs on a small file, on all samples in one run, and on a large clean file; all in one run."""
    small = next(file for file in files if file.name == "model.pt")
    large = home / "large" / "training_state.pth"
    _write_large(large)
    kinds = {
        f"one file of {small.stat().st_size / 1000:,.0f} kB": [small],
        f"all {len(files)} samples": files,
        f"one training state of {large.stat().st_size / MB:,.0f} MB": [large],
    }
    commands = [
        Command(f"{scanner.name} {kind}", _one_command(scanner, targets, home), tuple(range(256)))
        for kind, targets in kinds.items()
        for scanner in scanners
    ]
    costs = run_all(commands, rounds)
    return {kind: [costs[f"{scanner.name} {kind}"] for scanner in scanners] for kind in kinds}


def _one_command(scanner: Scanner, targets: list[Path], home: Path) -> tuple[str, ...]:
    """One process for one file or for the directory of all; a shell that starts many where there is no other way."""
    if len(targets) == 1:
        return scanner.command(targets[0])
    if scanner.whole:
        return scanner.command(home / "samples")
    return ("sh", "-c", "; ".join(f"{shlex.join(scanner.command(t))} 2>/dev/null" for t in targets))


def _write_large(path: Path) -> None:
    import torch

    model = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(LARGE_LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 2048)).sum().backward()
    optimizer.step()
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 0, "global_step": 1}, path)


def _page(
    scanners: list[Scanner], versions: str, asked: dict[str, list[Asked]], costs: dict[str, list[Cost]], rounds: int
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
    yield from _table(["", *names], (_cost_row(kind, of) for kind, of in costs.items()))
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


def _cost_row(kind: str, costs: list[Cost]) -> list[str]:
    ours = costs[0].median
    return [kind, *(f"{c.median:.2f} s ({c.median / ours:.1f})" for c in costs)]


def _table(headings: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + " --- |" * len(headings)
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()

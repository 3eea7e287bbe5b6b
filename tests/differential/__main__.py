"""The long run: `python -m tests.differential --count 1000000 --seed 7 --format zip`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.differential.mutants import mutant
from tests.differential.seeds import FORMATS
from tests.differential.workers import BATCH, Tally, Task, run

_SAVED_OF_A_KIND = 5


def main() -> int:
    """Run; 1 where anything failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential",
        description="Mutate sound files and compare what our readers say with what the real loaders do. From the root of "
        "the repository, with PYTHONPATH=plugins if it isn't installed.",
    )
    parser.add_argument("--count", type=int, default=100_000, help="mutants of each format (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other mutants (default: 0)")
    parser.add_argument("--format", choices=FORMATS, action="append", help="only this format; may be given again")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument(
        "--save", default="differential-failures", help="folder for failing mutants (default: %(default)s)"
    )
    options = parser.parse_args()
    started = time.monotonic()
    tasks = [t for f in options.format or FORMATS for t in tasks_of(f, options.seed, options.count)]
    tally = run(tasks, options.processes)
    print(summary(tally))
    print(f"{sum(tally.counts.values()):,} mutants in {time.monotonic() - started:.0f} s")
    save(tally, options.save)
    return 1 if tally.failures else 0


def tasks_of(file_format: str, seed: int, count: int) -> list[Task]:
    """The first `count` mutants of a format, in batches."""
    return [Task(file_format, seed, at, min(at + BATCH, count)) for at in range(0, count, BATCH)]


def summary(tally: Tally) -> str:
    """A table of formats and verdicts, and below it each kind of failure and of what we are stricter in."""
    kinds = sorted({verdict.kind for _, verdict in tally.counts})
    lines = [f"{'':12}" + "".join(f"{kind:>14}" for kind in kinds)]
    for file_format in dict.fromkeys(f for f, _ in tally.counts):
        by_kind: Counter[str] = Counter()
        for (f, verdict), count in tally.counts.items():
            by_kind[verdict.kind] += count if f == file_format else 0
        lines.append(f"{file_format:12}" + "".join(f"{by_kind[kind]:>14,}" for kind in kinds))
    for (file_format, verdict), count in tally.counts.most_common():
        if verdict.what:
            lines.append(f"{count:>8,} {file_format:12}{verdict.kind:10}{verdict.what}")
    return "\n".join(lines)


def save(tally: Tally, folder: str) -> None:
    """Write the smallest failing mutants of each kind, named by how to make them again."""
    found: dict[tuple[str, str], list[tuple[bytes, str]]] = {}
    for task, number, verdict in tally.failures:
        data = mutant(task.file_format, task.seed, number)
        name = f"{task.file_format}-{task.seed}-{number}-{verdict.kind.lower()}"
        found.setdefault((task.file_format, verdict.what), []).append((data, name))
    if found:
        os.makedirs(folder, exist_ok=True)
        print(f"failing mutants are in {folder}", file=sys.stderr)
    for mutants in found.values():
        for data, name in sorted(mutants, key=lambda m: len(m[0]))[:_SAVED_OF_A_KIND]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)


if __name__ == "__main__":
    sys.exit(main())

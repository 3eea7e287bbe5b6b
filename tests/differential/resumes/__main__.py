"""The long run: `python -m tests.differential.resumes --trainer all --seed 7 --mutants 1000`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter, defaultdict

from tests.differential.resumes.judge import AGREED, ALARM, CRASH, RAISES, SILENT
from tests.differential.resumes.workers import TRAINERS, Judged, run


def main() -> int:
    """Run; 1 where something is neither agreed nor listed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential.resumes",
        description="Damage one field or file of a real save, resume from it, and compare what comes back with what we say. "
        "From the root of the repository, with PYTHONPATH=.:plugins if it isn't installed.",
    )
    parser.add_argument("--trainer", choices=("all", *TRAINERS), default="all")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other mutants (default: 0)")
    parser.add_argument("--mutants", type=int, default=1_000, help="of each trainer (default: 1000)")
    parser.add_argument("--each", action="store_true", help="print each unlisted mutant, not an example of each kind")
    options = parser.parse_args()
    rows, unlisted = [], []
    for name in TRAINERS if options.trainer == "all" else (options.trainer,):
        started = time.monotonic()
        judged = list(run(name, options.seed, options.mutants))
        rows.append(row(name, judged, time.monotonic() - started))
        unlisted += [j for j in judged if j.verdict.kind != AGREED and not j.verdict.reason]
        print(details(name, judged, each=options.each), flush=True)
    print(table(rows))
    return 1 if unlisted else 0


COLUMNS = ("mutants", AGREED, RAISES, "(listed)", SILENT, "(listed)", ALARM, "(listed)", CRASH, "seconds")


def row(name: str, judged: list[Judged], seconds: float) -> list[str]:
    """A trainer's line of the table; those that a reason lists are counted apart from those that none does."""
    count = Counter((j.verdict.kind, bool(j.verdict.reason)) for j in judged)
    pairs = [f"{count[kind, listed]:,}" for kind in (RAISES, SILENT, ALARM) for listed in (False, True)]
    return [name, f"{len(judged):,}", f"{count[AGREED, False]:,}", *pairs, f"{count[CRASH, False]:,}", f"{seconds:.0f}"]


def table(rows: list[list[str]]) -> str:
    """Trainers and verdicts."""
    head = f"{'':14}" + "".join(f"{name:>16}" for name in COLUMNS)
    return "\n".join([head, *(f"{r[0]:14}" + "".join(f"{cell:>16}" for cell in r[1:]) for r in rows)])


def details(name: str, judged: list[Judged], *, each: bool) -> str:
    """What is listed by reason, and what is not by its shape with an example."""
    groups: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for j in judged:
        if j.verdict.kind != AGREED:
            groups[j.verdict.kind, j.verdict.reason or (str(j.number) if each else _shape(j))].append(j)
    lines = [f"== {name}"]
    for (kind, what), of_kind in sorted(
        groups.items(), key=lambda g: (g[0][0], bool(g[1][0].verdict.reason), -len(g[1]))
    ):
        one = of_kind[0]
        said = one.theirs.raised or " ".join(one.theirs.differs[:6]) or f"exit {one.ours.exit_code}"
        found = (
            f" <- {one.ours.findings[0]}" if one.ours.findings else f" <- {one.ours.crash}" if one.ours.crash else ""
        )
        sign = "listed" if one.verdict.reason else "UNLISTED"
        lines.append(
            f"{len(of_kind):>5} {kind:15} {sign}: {what}\n      #{one.number} {one.mutant}: {said[:160]}{found[:260]}"
        )
    return "\n".join(lines)


def _shape(j: Judged) -> str:
    """A mutant with its numbers left out."""
    return re.sub(r"\d+", "#", f"{j.mutant.file} | {j.mutant.where} | {j.mutant.how}")


if __name__ == "__main__":
    sys.exit(main())

"""The benchmarks: what verifying costs, beside what importing torch, loading with torch and `cat` cost in the same run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from checkpoints import VERSION
from measure import ENVIRONMENT, Command, Cost, run_all

HERE = Path(__file__).parent
CKPT_RULES = str(Path(sys.executable).with_name("ckpt-rules"))
LOAD = """
import sys, torch
from safetensors import safe_open
for path in sys.argv[1:]:
    if path.endswith(".safetensors"):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    else:
        torch.load(path, mmap=True, weights_only=True, map_location="cpu")
"""
MB = 1_000_000
PEAK_BUDGET = 200 * MB


@dataclass(frozen=True)
class Row:
    """One line of the table; `budget` is empty where the line is only there to be compared with."""

    what: str
    median_seconds: float
    peak_bytes: int | None = None
    ratio: float | None = None
    budget: str = ""
    kept: bool | None = None


def main() -> None:
    options = _options()
    home = Path(options.directory)
    # Its own process: built here, the tensors would count as the peak memory of every child.
    subprocess.run([sys.executable, str(HERE / "checkpoints.py"), str(home)], check=True)
    plain, sparse, sparse10 = (home / f"{name}-v{VERSION}" for name in ("plain", "sparse", "sparse10"))
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        weights_only = _weights_only(plain, Path(scratch))
        costs = run_all(_commands(plain, sparse, weights_only), options.rounds)
        raised = Path(scratch) / "raised.yaml"
        raised.write_text(RAISED, encoding="utf-8")
        costs |= run_all([_verify("10x", str(raised), sparse10)], max(1, options.rounds // 3))
    rows = [*_table(costs), *_in_process(plain)]
    print(_text(rows))
    if options.json:
        Path(options.json).write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        Path(options.markdown).write_text(_markdown(rows, options.rounds), encoding="utf-8")
    missed = [row.what for row in rows if row.kept is False]
    print(f"\n{len(missed)} budgets missed: {'; '.join(missed)}" if missed else "\nevery budget is kept")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("CKPT_BENCH_DIR") or str(Path(tempfile.gettempdir()) / "ckpt-rules-bench")
    parser.add_argument("--directory", default=default, help="where the checkpoints are built and kept (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command (%(default)s)")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--markdown", help="write the table, with what it was measured on, to this file")
    return parser.parse_args()


def _weights_only(plain: Path, scratch: Path) -> Path:
    """A checkpoint of the 475 MiB of safetensors alone, by a link of the same name."""
    (scratch / "model.safetensors").hardlink_to(plain / "model.safetensors")
    (scratch / "config.json").hardlink_to(plain / "config.json")
    return scratch


def _verify(name: str, ruleset: str, checkpoint: Path) -> Command:
    # Weights alone can't be resumed from: that is found, and exit code 1 is right for all but the plain checkpoint.
    exit_codes = (0,) if checkpoint.name.startswith("plain") else (1,)
    return Command(name, (CKPT_RULES, "verify", "--quiet", "--ruleset", ruleset, str(checkpoint)), exit_codes)


def _commands(plain: Path, sparse: Path, weights_only: Path) -> list[Command]:
    files = tuple(str(plain / name) for name in ("model.safetensors", "training_state.pth"))
    return [
        Command("pass", (sys.executable, "-c", "pass")),
        Command("import torch", (sys.executable, "-c", "import torch")),
        Command("load", (sys.executable, "-c", LOAD, *files)),
        Command("cat", ("cat", *files)),
        _verify("quick", "quick", plain),
        _verify("default", "default", plain),
        _verify("475 quick", "quick", weights_only),
        _verify("475 default", "default", weights_only),
        _verify("sparse quick", "quick", sparse),
        _verify("sparse default", "default", sparse),
    ]


def _table(costs: dict[str, Cost]) -> Iterator[Row]:
    torch = costs["import torch"].median

    def row(name: str, what: str, limit: float | None = None, budget: str = "") -> Row:
        cost = costs[name]
        kept = None if limit is None else cost.median <= limit and cost.peak <= PEAK_BUDGET
        return Row(what, cost.median, cost.peak, cost.median / torch, budget, kept)

    yield row("pass", "python -c pass")
    yield row("import torch", "python -c 'import torch'")
    yield row("load", "torch.load(mmap, weights_only) and safe_open, 1.5 GB")
    yield row("cat", "cat of the same files > /dev/null")
    yield row("quick", "verify --ruleset quick, 1.5 GB", torch / 2, "0.50 x import torch")
    yield row("default", "verify (default), 1.5 GB", torch / 2, "0.50 x import torch")
    yield row("475 quick", "verify --ruleset quick, 475 MiB of safetensors", 1.0, "1 s")
    yield row("475 default", "verify (default), 475 MiB of safetensors", 2.0, "2 s")
    yield row("sparse quick", "verify --ruleset quick, 163 shards, 91,991 tensors", 1.0, "1 s")
    yield row("sparse default", "verify (default), 163 shards, 91,991 tensors", 1.0, "1 s")
    ten_times = 10 * costs["sparse default"].median
    yield row("10x", "verify (default), 1,630 shards, ten times the tensors", ten_times, f"{ten_times:.1f} s")


def _in_process(plain: Path) -> Iterator[Row]:
    argv = [sys.executable, str(HERE / "inprocess.py"), str(plain), "50"]
    first, *rest = json.loads(subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout)
    yield Row("verify(ruleset='quick') in a process, first call with its imports", first)
    median = statistics.median(rest)
    yield Row("verify(ruleset='quick') in a process, 1.5 GB", median, None, None, "10 ms", median <= 0.010)


# A million tensors are more than any real checkpoint has, and more than is read by default.
RAISED = "extends: [default]\nlimits: {memory: 1000, structure: 128}\n"
HEADINGS = ("", "median", "x import torch", "peak memory", "budget", "")


def _cells(row: Row) -> tuple[str, ...]:
    seconds = f"{row.median_seconds * 1e3:,.1f} ms" if row.median_seconds < 1 else f"{row.median_seconds:,.2f} s"
    return (
        row.what,
        seconds,
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.peak_bytes is None else f"{row.peak_bytes / MB:,.0f} MB",
        row.budget,
        {True: "ok", False: "OVER", None: ""}[row.kept],
    )


def _text(rows: list[Row]) -> str:
    table = [HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def _markdown(rows: list[Row], rounds: int) -> str:
    lines = [
        "| " + " | ".join(cells) + " |"
        for cells in (HEADINGS, ("---", *["---:"] * 3, "---", "---"), *map(_cells, rows))
    ]
    facts = (
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: medians of {rounds} runs, one after the other in turn; files in the "
        f"page cache; peak memory of the whole process, whose budget is 200 MB. {platform.system()} on {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}, pydantic {version('pydantic')}."
    )
    return "# Benchmark results\n\n" + facts + "\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

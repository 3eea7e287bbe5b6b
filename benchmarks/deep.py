"""What reading every byte costs, beside `cat` of the same files and what else people check them with: benchmarks/deep-results.md.

    python benchmarks/deep.py [--large] [weightlens=/path/to/lens] [--markdown benchmarks/deep-results.md]

Each command is run in turn, files in the page cache; the cold runs are made after the system was told to drop the files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from checkpoints import VERSION
from measure import ENVIRONMENT, Command, Cost, run_all, run_once

HERE = Path(__file__).parent
CKPT_RULES = str(Path(sys.executable).with_name("ckpt-rules"))
MB, GB = 1_000_000, 1_000_000_000
LARGE_SHARDS = 14
IS_FINITE = """
import sys, torch
from safetensors import safe_open

def check(value):
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            assert torch.isfinite(value).all()
    elif isinstance(value, dict):
        for part in value.values():
            check(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            check(part)

for path in sys.argv[1:]:
    if path.endswith(".safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                check(file.get_tensor(name))
    else:
        check(torch.load(path, mmap=True, weights_only=True, map_location="cpu"))
"""


def main() -> None:
    options = _options()
    home = Path(options.directory)
    subprocess.run([sys.executable, str(HERE / "checkpoints.py"), str(home)], check=True)
    others = dict(part.split("=", 1) for part in options.others)
    sections = [_section("1.5 GB", home / f"plain-v{VERSION}", options.rounds, others)]
    if options.large:
        sections.append(_section("20 GB", _large(home), max(1, options.rounds // 2), others))
    text = "\n".join(sections)
    print(text)
    if options.markdown:
        Path(options.markdown).write_text(f"{_about(options.rounds)}\n{text}", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CKPT_BENCH_DIR") or str(Path(tempfile.gettempdir()) / "ckpt-rules-bench")
    parser.add_argument("others", nargs="*", help="weightlens=/path/to/lens, to be measured as well")
    parser.add_argument("--directory", default=default, help="where the checkpoints are built and kept (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command (%(default)s)")
    parser.add_argument("--large", action="store_true", help="20 GB too, which are built once")
    parser.add_argument("--markdown", help="write the tables to this file")
    return parser.parse_args()


def _large(home: Path) -> Path:
    """20 GB of safetensors: a shard of 1.43 GB, 14 times."""
    folder = home / "large-v1"
    done = folder / "model.safetensors.index.json"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", WRITE_SHARD, str(folder / "one")], check=True)
    index: dict[str, str] = {}
    header_nbytes = int.from_bytes((folder / "one").open("rb").read(8), "little")
    with (folder / "one").open("rb") as file:
        names = [n for n in json.loads(file.read(8 + header_nbytes)[8:]) if n != "__metadata__"]
    for number in range(1, LARGE_SHARDS + 1):
        shard = f"model-{number:05d}-of-{LARGE_SHARDS:05d}.safetensors"
        _renamed(folder / "one", folder / shard, f"part{number:02d}")
        index |= {name.replace("part00", f"part{number:02d}"): shard for name in names}
    (folder / "one").unlink()
    done.write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    return folder


WRITE_SHARD = """
import sys, torch
from safetensors.torch import save_file
torch.manual_seed(1)
save_file({f"part00.layers.{i}.weight": torch.randn(4096, 4096) * 0.02 for i in range(21)}, sys.argv[1])
"""


def _renamed(source: Path, target: Path, part: str) -> None:
    """A copy whose tensors have names of the same length."""
    with source.open("rb") as old, target.open("wb") as new:
        length = old.read(8)
        new.write(length + old.read(int.from_bytes(length, "little")).replace(b"part00", part.encode()))
        shutil.copyfileobj(old, new, 16 << 20)


def _section(size: str, folder: Path, rounds: int, others: dict[str, str]) -> str:
    files = tuple(str(f) for f in sorted(folder.iterdir()) if f.suffix in (".safetensors", ".pth"))
    commands = list(_commands(folder, files, others))
    costs = run_all(commands, rounds)
    shown = [*commands, Command(LOOP, ())]
    costs[LOOP] = _in_process(folder, rounds)
    warm = _table(f"{size}, in the page cache", shown, costs)
    cold = [c for c in commands if c.name in (CAT, DEEP)]
    chilled = {c.name: _cold(c, files, max(1, rounds // 2)) for c in cold}
    return f"{warm}\n{_table(f'{size}, dropped from the page cache before each run', cold, chilled)}"


CAT, DEEP = "cat FILES > /dev/null", "ckpt-rules verify --ruleset deep"
LOOP = "verify(ruleset='deep') in a process that has done so before"


def _commands(folder: Path, files: tuple[str, ...], others: dict[str, str]) -> Iterator[Command]:
    yield Command(CAT, ("cat", *files))
    # Weights alone can't be resumed from, which is found: 1 is right for them.
    verify = (CKPT_RULES, "verify", "--quiet", "--ruleset", "deep", str(folder))
    yield Command(DEEP, verify, (0, 1))
    yield Command(f"{DEEP} --jobs 1", (*verify, "--jobs", "1"), (0, 1))
    yield Command("ckpt-rules verify (default)", (CKPT_RULES, "verify", "--quiet", str(folder)), (0, 1))
    yield Command("ckpt-rules stats", (CKPT_RULES, "stats", "--quiet", str(folder)))
    yield Command("sha256sum", ("sha256sum", *files))
    if b3sum := shutil.which("b3sum"):
        yield Command("b3sum", (b3sum, *files))
    for path in files:
        if path.endswith(".pth"):
            yield Command(f"python -m zipfile -t {Path(path).name}", (sys.executable, "-m", "zipfile", "-t", path))
    yield Command("torch.load, safe_open and isfinite", (sys.executable, "-c", IS_FINITE, *files))
    if weightlens := others.get("weightlens"):
        yield Command(
            f"weightlens analyze {Path(files[0]).name}, one file of {len(files)}",
            (weightlens, "analyze", files[0]),
            (0, 1, 2),
        )


def _in_process(folder: Path, rounds: int) -> Cost:
    argv = [sys.executable, str(HERE / "inprocess.py"), str(folder), str(rounds), "deep"]
    _, *seconds = json.loads(subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout)
    return Cost(seconds)


def _cold(command: Command, files: tuple[str, ...], rounds: int) -> Cost:
    cost = Cost()
    for _ in range(rounds):
        os.sync()
        for path in files:
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
        cost.add(run_once(command))
    return cost


def _table(title: str, commands: list[Command], costs: dict[str, Cost]) -> str:
    cat = costs[CAT].median
    lines = [f"## {title}", "", "|  | median | x cat | peak memory |", "| --- | ---: | ---: | ---: |"]
    for command in commands:
        cost = costs[command.name]
        seconds = f"{cost.median * 1e3:,.0f} ms" if cost.median < 1 else f"{cost.median:,.2f} s"
        peak = f"{cost.peak / MB:,.0f} MB" if cost.peak_bytes else ""
        lines.append(f"| {command.name} | {seconds} | {cost.median / cat:,.1f} | {peak} |")
    return "\n".join(lines) + "\n"


def _about(rounds: int) -> str:
    return (
        "# What reading every byte costs\n\n"
        f"Written by `benchmarks/deep.py` on {datetime.now(UTC):%Y-%m-%d}: medians of {rounds} runs for 1.5 GB (half as many for 20 GB), one "
        f"after the other in turn, start of the process included. {platform.system()} on {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {version('torch')}, numpy {version('numpy')}, zlib-ng {version('zlib-ng')}.\n"
    )


if __name__ == "__main__":
    main()

"""Runs one command as a child of its own and says what it cost.

A child's peak memory, as Linux counts it, is never less than what the process that started it had at its own peak: what
imports this module stays small, and imports nothing that it measures.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from dataclasses import dataclass, field
from time import perf_counter

# An installed package has its bytecode; in a checkout, the runs that warm up must be allowed to write it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Command:
    """One line of the table.

    exit_codes: what the command may end with; anything else stops the benchmark
    """

    name: str
    argv: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)


@dataclass
class Cost:
    """What the runs of one command took: wall-clock seconds, CPU seconds and peak resident bytes, run by run."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    exit_code: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak(self) -> int:
        return max(self.peak_bytes)

    def add(self, other: Cost) -> None:
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.peak_bytes += other.peak_bytes
        self.exit_code = other.exit_code


def run_once(command: Command) -> Cost:
    """Start the command with its output thrown away, wait for it, and read its own resource usage."""
    started = perf_counter()
    with subprocess.Popen(command.argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        seconds = perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in command.exit_codes:
        raise SystemExit(f"{command.name} ended with exit code {child.returncode}: {' '.join(command.argv)}")
    return Cost([seconds], [usage.ru_utime + usage.ru_stime], [usage.ru_maxrss * 1024], child.returncode)


def run_all(commands: list[Command], rounds: int) -> dict[str, Cost]:
    """Run every command once in each round, so that a busy moment of the machine falls on all; a first round warms up."""
    costs = {command.name: Cost() for command in commands}
    for command in commands:
        run_once(command)
    for _ in range(rounds):
        for command in commands:
            costs[command.name].add(run_once(command))
    return costs

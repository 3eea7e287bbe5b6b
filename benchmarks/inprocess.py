"""Times `verify` inside a process, as a training loop calls it: `inprocess.py CHECKPOINT RUNS [RULESET]`, `quick` unless given.

Prints the seconds of each run as a JSON list; the first, which imports and collects the plugins, comes first.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter


def main() -> None:
    checkpoint, runs = sys.argv[1], int(sys.argv[2])
    ruleset = sys.argv[3] if len(sys.argv) > 3 else "quick"
    seconds = []
    for _ in range(runs + 1):
        started = perf_counter()
        from ckpt_rules import verify

        verify(checkpoint, ruleset=ruleset)
        seconds.append(perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

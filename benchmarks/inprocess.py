"""Times `quick_verify_checkpoint` inside a process, as a training loop calls it: `inprocess.py CHECKPOINT RUNS`.

Prints the seconds of each run as a JSON list; the first, which imports and collects the plugins, comes first.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter


def main() -> None:
    checkpoint, runs = sys.argv[1], int(sys.argv[2])
    seconds = []
    for _ in range(runs + 1):
        started = perf_counter()
        from ckpt_rules import quick_verify_checkpoint

        quick_verify_checkpoint(checkpoint)
        seconds.append(perf_counter() - started)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

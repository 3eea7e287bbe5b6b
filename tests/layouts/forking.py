"""Forks the ranks of a training from a process that has imported what it needs: the imports take longer than the training."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import wait

from torch.distributed import TCPStore


def fork(ranks: int, main: Callable[[], None]) -> None:
    """Run `main` in so many processes with the variables that torchrun sets; exits where one fails, and the others with it."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    forks = [
        multiprocessing.get_context("fork").Process(target=_rank, args=(main, r, ranks, store.port))
        for r in range(ranks)
    ]
    for each in forks:
        each.start()
    running = {each.sentinel: each for each in forks}
    while running:
        for sentinel in wait(list(running)):
            ended = running.pop(sentinel)
            ended.join()
            if ended.exitcode:
                for other in running.values():
                    other.kill()
                sys.exit(f"rank {forks.index(ended)} ended with {ended.exitcode}")


def _rank(main: Callable[[], None], rank: int, ranks: int, port: int) -> None:
    values = {
        "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "forked", "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }  # fmt: skip
    os.environ.update({name: str(value) for name, value in values.items()})
    main()

"""The command line: options in, text and an exit code out. Everything it does can be had from the API as well."""

from __future__ import annotations

import gc
from collections.abc import Sequence

# Headers become hundreds of thousands of small objects without cycles; by default the collector walks them again and again.
GC_THRESHOLDS = (20_000, 10, 10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv` unless given, and return its exit code."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        # Whoever presses ^C while this is imported gets no traceback either.
        from ckpt_rules.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        from ckpt_rules.cli.output import INTERRUPTED, say

        say("interrupted")
        return INTERRUPTED
    finally:
        gc.set_threshold(*thresholds)

"""The command line: options in, text and an exit code out. Everything it does can be had from the API as well."""

from __future__ import annotations

from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, `sys.argv` unless given, and return its exit code."""
    try:
        # Whoever presses ^C while this is imported gets no traceback either.
        from ckpt_rules.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED

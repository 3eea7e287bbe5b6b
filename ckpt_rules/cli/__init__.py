"""The command line: options in, text and an exit code out. Everything it does can be had from the API as well."""

from ckpt_rules.cli.main import main

__all__ = ["main"]

"""The commands put together, and the one boundary where any exception becomes a message and an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from ckpt_rules.cli import (
    catalogue,
    diff,
    inspection,
    latest,
    plugins,
    rulesets,
    schema,
    seal,
    stats,
    verify,
)
from ckpt_rules.cli.output import INTERRUPTED, emit, say, silence
from ckpt_rules.errors import CkptRulesError
from ckpt_rules.report import ExitCode
from ckpt_rules.storage import reason
from ckpt_rules.version import __version__

TRACEBACK = "CKPT_RULES_TRACEBACK"

app = typer.Typer(
    name="ckpt-rules",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 passed, 1 failed, 2 unknown: a mistake in the command or ruleset, a plugin or rule that failed.",
)
app.command("verify")(verify.verify)
app.command("latest")(latest.latest)
app.command("inspect")(inspection.inspect)
app.command("diff")(diff.diff)
app.command("seal")(seal.seal)
app.command("stats")(stats.stats)
app.command("rules")(catalogue.rules)
app.command("rule")(catalogue.rule)
app.add_typer(rulesets.app, name="rulesets")
app.command("plugins")(plugins.plugins)
app.command("schema")(schema.schema)


def _version(asked: bool) -> None:
    if asked:
        emit([f"ckpt-rules {__version__}\n"])
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """The linter for training checkpoints.

    Can training be resumed from this directory, and will it resume where you think?
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Nothing but a message reaches the user, whatever but ^C is raised."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    wants_traceback = bool(os.environ.get(TRACEBACK)) or not {"-v", "--verbose"}.isdisjoint(arguments)
    try:
        code = int(typer.main.get_command(app).main(arguments, prog_name="ckpt-rules", standalone_mode=False) or 0)
    except CkptRulesError as error:
        say(f"error: {error}")
    except SystemExit as ended:
        # Only typer ends the process from in here: where the reader of a help page, which it prints itself, goes away.
        return ExitCode.PASSED if isinstance(ended.__context__, BrokenPipeError) else ExitCode.UNKNOWN
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the boundary: a bug is a message as well
        say(_message(error, with_traceback=wants_traceback))
    else:
        if code == INTERRUPTED:  # what typer makes of ^C
            raise KeyboardInterrupt
        return code
    finally:
        _flush()
    return ExitCode.UNKNOWN


def _message(error: BaseException, *, with_traceback: bool) -> str:
    # What typer raises for a misused command; which class that is differs by its version.
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        text = io.StringIO()
        error.show(text)
        return text.getvalue()
    if isinstance(error, OSError) and error.filename is None:  # a help page again
        return f"error: standard output can't be written to: {reason(error)}"
    return _bug(error, with_traceback=with_traceback)


def _bug(error: BaseException, *, with_traceback: bool) -> str:
    said = f"error: ckpt-rules itself failed, {type(error).__name__}: {error}\nThis is a bug; please report it"
    if with_traceback:
        return f"{said}, with this traceback:\n{''.join(traceback.format_exception(error))}"
    return f"{said}, with the traceback that {TRACEBACK}=1 shows."


def _flush() -> None:
    """Leave nothing in the buffers of a stream that can't take it, for the interpreter would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            silence(stream)

"""`ckpt-rules seal`: write down what every file is, for a later `verify` to compare."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ckpt_rules.cli.options import AsLayout, Jobs, NoPlugin, WithRuleset, stdout_kept_clean
from ckpt_rules.cli.output import emit
from ckpt_rules.cli.progress import shown_progress
from ckpt_rules.printable import printable
from ckpt_rules.report import ExitCode


class Algorithm(StrEnum):
    """How files are digested."""

    BLAKE3 = "blake3"
    SHA256 = "sha256"


def seal(  # noqa: PLR0913 - one argument for each flag
    path: Annotated[str, typer.Argument(metavar="PATH", help="A checkpoint directory.", show_default=False)],
    *,
    algorithm: Annotated[
        Algorithm, typer.Option(help="blake3 is the faster one; other tools know sha256.")
    ] = Algorithm.BLAKE3,
    force: Annotated[bool, typer.Option("--force", help="Replace the seal that is there.")] = False,
    sign_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Sign it too, with this private key (PEM); needs ckpt-rules[signing].",
            show_default=False,
        ),
    ] = None,
    jobs: Jobs = None,
    ruleset: WithRuleset = None,
    layout: AsLayout = None,
    no_plugin: NoPlugin = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> int:
    """Write down size and digest of every file, so that 'verify --ruleset deep' can tell what changed since.

    The seal, ckpt-rules.seal.json, appears in the checkpoint when all files are read. Ends with 0, or with 2 where nothing was sealed.
    """
    from ckpt_rules.api import seal as seal_path
    from ckpt_rules.facts.seal import SEAL_NAME, SIGNATURE_NAME
    from ckpt_rules.reporters.inspection import size

    with stdout_kept_clean(), shown_progress(quiet=quiet) as progress:
        sealed = seal_path(
            path,
            algorithm=algorithm.value,
            force=force,
            sign_key=sign_key,
            jobs=jobs,
            progress=progress,
            ruleset=ruleset,
            no_plugins=no_plugin or (),
            layout=layout,
        )
    if not quiet:
        nbytes = size(sum(f.size for f in sealed.files.values()))
        files = f"{len(sealed.files):,} file{'' if len(sealed.files) == 1 else 's'}"
        signed = f" and signed in {SIGNATURE_NAME}" if sign_key else ""
        emit([f"sealed {files}, {nbytes}, by {algorithm.value} in {printable(path)}/{SEAL_NAME}{signed}\n"])
    return ExitCode.PASSED

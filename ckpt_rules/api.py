"""The Python API: verify a checkpoint from a script or a training loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

from ckpt_rules.engine import open_checkpoint, run
from ckpt_rules.errors import CheckpointInvalid
from ckpt_rules.limits import DEFAULT_LIMITS
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.storage import LocalStorage
from ckpt_rules.time_limit import checked

if TYPE_CHECKING:
    import os

    from ckpt_rules.inspection import Inspection
    from ckpt_rules.report import Report
    from ckpt_rules.ruleset.resolved import ResolvedRuleset


def verify(  # noqa: PLR0913 - one keyword for each flag of the command
    path: str | os.PathLike[str],
    *,
    ruleset: str | os.PathLike[str] = "default",
    strict: bool | None = None,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    no_plugins: Iterable[str] = (),
    today: date | None = None,
    rule_timeout: float | None = None,
) -> Report:
    """Run a ruleset over one checkpoint directory.

    path:       the directory; one that is missing or broken makes findings, not exceptions
    ruleset:    a built-in name (`quick`, `default`, `ci`), `plugin:name`, or the path of a YAML file
    strict:     True makes warnings errors; False does not; None leaves it to the ruleset
    select:     a glob of rule ids or `tag:…`, or several: only these rules run, with the ruleset's severities and options
    exclude:    a glob of rule ids or `tag:…`, or several, that do not run
    no_plugins: names of installed plugins to leave out
    today:      the day by which ignores expire; the real one unless given
    rule_timeout: seconds after which a rule is stopped, so that the report can't be a pass; None for no limit

    Raises `RulesetError` for mistakes in the ruleset, `UsageError` for names that do not exist and `PluginError` for
    plugins that clash; never for what the checkpoint holds.
    """
    timeout = checked(rule_timeout)
    resolved = load_ruleset(ruleset, strict=strict, select=select, exclude=exclude, no_plugins=no_plugins, today=today)
    return run(LocalStorage(path, resolved.limits), resolved, timeout)


def load_ruleset(
    ruleset: str | os.PathLike[str] = "default",
    *,
    strict: bool | None = None,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    no_plugins: Iterable[str] = (),
    today: date | None = None,
) -> ResolvedRuleset:
    """A ruleset with nothing left open, for the arguments of `verify`; several checkpoints can be run against it."""
    from ckpt_rules.ruleset import resolve

    select, exclude = _patterns(select), _patterns(exclude)
    resolved = resolve(
        ruleset,
        installed_plugins(frozenset(no_plugins)),
        strict=strict,
        select=select,
        exclude=exclude,
        today=today or date.today(),
    )
    return replace(resolved, narrowed=bool(select or exclude))


def _patterns(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def quick_verify_checkpoint(
    path: str | os.PathLike[str], *, ruleset: str | os.PathLike[str] = "quick", strict: bool | None = None
) -> Report:
    """Verify with the `quick` ruleset and raise `CheckpointInvalid` unless it passes; for use inside a training loop."""
    report = verify(path, ruleset=ruleset, strict=strict)
    if not report.passed:
        raise CheckpointInvalid(report)
    return report


def inspect(
    path: str | os.PathLike[str], *, ruleset: str | os.PathLike[str] | None = None, no_plugins: Iterable[str] = ()
) -> Inspection:
    """What a checkpoint is: layout, progress, optimizer, scheduler, weights, and where training will start again.

    ruleset: where to take further plugin files and the limits of reading from

    What can't be had says why in `unavailable`. Raises `UsageError` where the path is no directory that can be listed,
    `RulesetError` for mistakes in the ruleset.
    """
    from ckpt_rules.inspection import inspect_checkpoint

    plugins, limits = installed_plugins(frozenset(no_plugins)), DEFAULT_LIMITS
    if ruleset is not None:
        resolved = load_ruleset(ruleset, no_plugins=no_plugins)
        plugins, limits = resolved.plugins, resolved.limits
    checkpoint, notices = open_checkpoint(LocalStorage(path, limits), plugins, limits)
    return inspect_checkpoint(checkpoint, notices)

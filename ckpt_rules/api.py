"""The Python API: verify a checkpoint from a script or a training loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.engine import run
from ckpt_rules.errors import CheckpointInvalid, UsageError
from ckpt_rules.facts.files import RootKind
from ckpt_rules.finding import Severity
from ckpt_rules.limits import DEFAULT_LIMITS
from ckpt_rules.opening import open_checkpoint
from ckpt_rules.plugins import installed_plugins
from ckpt_rules.reading import Reading
from ckpt_rules.storage import LocalStorage, OneFile
from ckpt_rules.time_limit import checked
from ckpt_rules.verdict import number

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ckpt_rules.comparison import Comparison
    from ckpt_rules.facts.files import Root
    from ckpt_rules.facts.seal import Seal
    from ckpt_rules.inspection.model import Inspection
    from ckpt_rules.report import Notice, Report
    from ckpt_rules.ruleset.resolved import ResolvedRuleset
    from ckpt_rules.tensor_stats.model import CheckpointStats


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
    layout: str | None = None,
    previous: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
) -> Report:
    """Run a ruleset over one checkpoint directory.

    path:       the directory; one that is missing or broken makes findings, not exceptions
    ruleset:    a built-in name (`quick`, `default`, `deep`, `ci`), `plugin:name`, or the path of a YAML file
    strict:     True makes warnings errors; False does not; None leaves it to the ruleset
    select:     a glob of rule ids or `tag:…`, or several: only these rules run, with the ruleset's severities and options
    exclude:    a glob of rule ids or `tag:…`, or several, that do not run
    no_plugins: names of installed plugins to leave out
    today:      the day by which ignores expire; the real one unless given
    rule_timeout: seconds after which a rule is stopped, so that the report can't be a pass; None for no limit
    layout:     the name of the layout to read it as; None for the one that fits best
    previous:   an earlier save of the same run for rules that compare with one, of which those that read no bytes then run
                with every ruleset; None for the complete save before this one, by its name, where a rule asks for it
    jobs:       threads that read every byte, where a rule needs that; None for one per core
    executor:   what to read every byte on instead of threads, such as that of a cluster: it must see the same files

    Raises `RulesetError` for mistakes in the ruleset, `UsageError` for names that do not exist and `PluginError` for
    plugins that clash; never for what the checkpoint holds.
    """
    timeout, reading = checked(rule_timeout), Reading(jobs, executor)
    resolved = load_ruleset(
        ruleset,
        strict=strict,
        select=select,
        exclude=exclude,
        no_plugins=no_plugins,
        compare=previous is not None,
        today=today,
    )
    earlier = finder(resolved, previous, timeout, layout)
    return _verified(path, resolved, timeout, layout, reading, earlier)


def load_ruleset(  # noqa: PLR0913 - one keyword for each flag of the command
    ruleset: str | os.PathLike[str] = "default",
    *,
    strict: bool | None = None,
    select: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    no_plugins: Iterable[str] = (),
    compare: bool = False,
    today: date | None = None,
) -> ResolvedRuleset:
    """A ruleset with nothing left open, for the arguments of `verify`; several checkpoints can be run against it.

    compare: whether an earlier save will be given; see `verify`
    """
    from ckpt_rules.ruleset import resolve

    select, exclude = _patterns(select), _patterns(exclude)
    resolved = resolve(
        ruleset,
        installed_plugins(frozenset(no_plugins)),
        strict=strict,
        select=select,
        exclude=exclude,
        compare=compare,
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


def newest_checkpoint(
    run: str | os.PathLike[str],
    *,
    ruleset: str | os.PathLike[str] = "default",
    strict: bool | None = None,
    no_plugins: Iterable[str] = (),
    passed_over: Callable[[Report], object] | None = None,
) -> str | None:
    """The path of the newest checkpoint in a directory of checkpoints that passes; None where none does, or there is none.

    run:         its checkpoints are told by their names (`checkpoint-500`), the highest number being the newest; they may lie
                 some directories down (`version_0/checkpoints`); a path that is a checkpoint itself stands for itself
    passed_over: called with the report of each that did not pass, or that no layout recognises as one does an earlier save; where
                 it is never called, and None is returned, there is no save at all

    Raises as `verify` does, and `UsageError` where the directory does not exist or can't be read, for nothing is known of its
    checkpoints then, and where it holds several runs.
    """
    from ckpt_rules.runs import checkpoints_in, itself, newest_passing

    resolved = load_ruleset(ruleset, strict=strict, no_plugins=no_plugins)
    path = os.fspath(run)
    found = checkpoints_in(path, resolved.plugins, resolved.limits)
    if not found:
        _refuse_no_directory(LocalStorage(path).root())
    if not found and (alone := itself(path, resolved.plugins, resolved.limits)):
        found = (alone,)
    verified = partial(_verified, ruleset=resolved)
    for report, good in newest_passing(found, verified, resolved.plugins, resolved.limits):
        if good:
            return report.checkpoint
        if passed_over:
            passed_over(report)
    return None


def _refuse_no_directory(root: Root) -> None:
    """UsageError where nothing can be known of the saves at a path: a mistyped one must not look like a run without any."""
    if root.kind is RootKind.MISSING:
        near = " or ".join(root.candidates)
        raise UsageError(f"{root.path} does not exist" + (f"; did you mean {near}?" if near else ""))
    if root.kind is RootKind.UNREADABLE:
        raise UsageError(f"{root.path} can't be opened: {root.error}")
    if root.kind is RootKind.OTHER:
        raise UsageError(f"{root.path} is neither a directory nor a regular file")


def _verified(
    path: str | os.PathLike[str],
    ruleset: ResolvedRuleset,
    timeout: float | None = None,
    layout: str | None = None,
    reading: Reading = Reading(),  # noqa: B008 - it is frozen
    earlier: Callable[[Checkpoint], Checkpoint] | None = None,
) -> Report:
    previous = earlier or finder(ruleset)
    return run(LocalStorage(path, ruleset.limits), ruleset, timeout, layout, reading, previous)


def finder(
    ruleset: ResolvedRuleset,
    previous: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    layout: str | None = None,
) -> Callable[[Checkpoint], Checkpoint]:
    """What finds the save to compare a checkpoint with: the one at a path, or the complete one before it in its run.

    Raises `UsageError` where there is none at the path.
    """
    from ckpt_rules.runs import named_save, save_before

    if previous is None:
        return partial(save_before, plugins=ruleset.plugins, limits=ruleset.limits, timeout=timeout, layout=layout)
    named = named_save(os.fspath(previous), ruleset.plugins, ruleset.limits, timeout, layout)
    return lambda _: named


def inspect(
    path: str | os.PathLike[str],
    *,
    ruleset: str | os.PathLike[str] | None = None,
    no_plugins: Iterable[str] = (),
    layout: str | None = None,
) -> Inspection:
    """What a checkpoint is: layout, progress, optimizer, scheduler, weights, and where training will start again.

    ruleset: where to take further plugin files and the limits of reading from
    layout:  the name of the layout to read it as; None for the one that fits best

    What is not available says why in `unavailable`. Raises `UsageError` where the path is not a directory that can be listed,
    `RulesetError` for mistakes in the ruleset.
    """
    from ckpt_rules.inspection.inspecting import inspect_checkpoint
    from ckpt_rules.report import Notice
    from ckpt_rules.runs import runs_in

    checkpoint, notices = _opened(path, ruleset, no_plugins, layout)
    runs = runs_in(os.fspath(path), installed_plugins(frozenset(no_plugins))) if layout is None else {}
    for name, saves in runs.items():
        words = f"{name} is a run of {number(len(saves), 'checkpoint')}, of which {saves[-1]} is the newest; inspect one of them"
        notices.append(Notice(severity=Severity.WARNING, message=words))
    return inspect_checkpoint(checkpoint, notices)


def stats(  # noqa: PLR0913 - one keyword for each flag of the command
    path: str | os.PathLike[str],
    *,
    tensor: str = "*",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    ruleset: str | os.PathLike[str] | None = None,
    no_plugins: Iterable[str] = (),
    layout: str | None = None,
) -> CheckpointStats:
    """The values of every tensor of a checkpoint: range, mean, norm, zeros, and what is not finite.

    tensor:   a glob of names; the bytes of other tensors are not read
    jobs:     threads; None for one per core
    executor: what to read on instead of threads
    progress: told from any thread how many bytes of how many were read

    For the other arguments see `inspect`. Raises `UsageError` where the path can't be looked into or no tensor matches.
    """
    from ckpt_rules.tensor_stats.measuring import stats_of

    checkpoint, notices = _opened(path, ruleset, no_plugins, layout)
    checkpoint = _as_one_file(checkpoint)
    checkpoint.reading = Reading(jobs, executor, progress)
    return stats_of(checkpoint, tensor, notices)


def diff(  # noqa: PLR0913 - one keyword for each flag of the command
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    tensor: str = "*",
    values: bool = True,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    ruleset: str | os.PathLike[str] | None = None,
    no_plugins: Iterable[str] = (),
    layout: str | None = None,
) -> Comparison:
    """What differs between two checkpoints: files, tensors, and what optimizer, scheduler and counters say.

    tensor: a glob of names; where it is not `*`, tensors with such names are compared, and nothing else
    values: whether bytes are read; if not, files are compared by size, tensors by shape and dtype

    For the other arguments see `stats`. Raises `UsageError` where a path can't be looked into, or no tensor matches.
    """
    from ckpt_rules.differing import comparison_of

    one, notices = _opened(a, ruleset, no_plugins, layout)
    other, more = _opened(b, ruleset, no_plugins, layout)
    both = _as_one_file(one), _as_one_file(other)
    both[0].reading = Reading(jobs, executor, progress)
    said = {notice.message: notice for notice in (*notices, *more)}
    return comparison_of(both, pattern=tensor, values=values, notices=tuple(said.values()))


def seal(  # noqa: PLR0913 - one keyword for each flag of the command
    path: str | os.PathLike[str],
    *,
    algorithm: str = "blake3",
    force: bool = False,
    sign_key: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    ruleset: str | os.PathLike[str] | None = None,
    no_plugins: Iterable[str] = (),
    layout: str | None = None,
) -> Seal:
    """Write size and digest of every file into the checkpoint, as its last file; `integrity/digest` compares them later.

    algorithm: `blake3` or `sha256`
    force:     whether a seal that is there is replaced
    sign_key:  a private key (PEM) by which the checkpoint, its seal included, is signed too; needs `ckpt-rules[signing]`

    For the other arguments see `stats`. Raises `UsageError`, and writes nothing, where a file can't be read or
    the key can't be used.
    """
    from ckpt_rules.runs import checkpoints_in
    from ckpt_rules.sealing import seal_checkpoint
    from ckpt_rules.signing import Signer

    signer = None if sign_key is None else Signer(os.fspath(sign_key))
    checkpoint, _ = _opened(path, ruleset, no_plugins, layout)
    if saves := checkpoints_in(os.fspath(path), installed_plugins(frozenset(no_plugins))):
        folder = next((s for s in reversed(saves) if os.path.isdir(s)), None)
        advice = f"seal one of them, such as {folder}" if folder else "they are files, and a seal lies in a directory"
        raise UsageError(f"{os.fspath(path)} is a run of {len(saves):,} checkpoints; {advice}")
    checkpoint.reading = Reading(jobs, executor, progress)
    sealed = seal_checkpoint(checkpoint, algorithm, force=force)
    if signer is not None:
        signer.sign(checkpoint)
    return sealed


def _as_one_file(checkpoint: Checkpoint) -> Checkpoint:
    """A file that no layout takes for a whole checkpoint is one here."""
    if checkpoint.files.root.kind is not RootKind.FILE:
        return checkpoint
    return Checkpoint(OneFile(checkpoint.path, checkpoint.files.budget.limits), checkpoint.files.budget.limits)


def _opened(
    path: str | os.PathLike[str],
    ruleset: str | os.PathLike[str] | None,
    no_plugins: Iterable[str],
    layout: str | None,
) -> tuple[Checkpoint, list[Notice]]:
    """A checkpoint read by the installed plugins, and by the plugin files and within the limits of a ruleset."""
    plugins, limits = installed_plugins(frozenset(no_plugins)), DEFAULT_LIMITS
    if ruleset is not None:
        resolved = load_ruleset(ruleset, no_plugins=no_plugins)
        plugins, limits = resolved.plugins, resolved.limits
    return open_checkpoint(LocalStorage(path, limits), plugins, limits, layout=layout)

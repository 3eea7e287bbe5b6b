"""Sums a checkpoint up, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import EntryKind, Root, RootKind
from ckpt_rules.facts.training import SchedulerState
from ckpt_rules.finding import Severity
from ckpt_rules.inspection.model import (
    FilesSummary,
    Inspection,
    Model,
    ModelSummary,
    OptimizerSummary,
    ProgressSummary,
    ResumeSummary,
    RngSummary,
    ScalerSummary,
    SchedulerSummary,
    WeightsSummary,
)
from ckpt_rules.opening import layout_summary
from ckpt_rules.plugin import crash_of
from ckpt_rules.report import Notice
from ckpt_rules.version import __version__


def inspect_checkpoint(checkpoint: Checkpoint, notices: Sequence[Notice] = ()) -> Inspection:
    """Everything that is known about a checkpoint; `UsageError` where its path is not a directory that can be listed."""
    if checkpoint.files.root.kind is not RootKind.DIRECTORY:
        raise UsageError(_why_not(checkpoint.files.root))
    try:
        files = _files(checkpoint)
    except FactUnavailable as absent:
        raise UsageError(f"{checkpoint.path} can't be opened: {absent.reason}") from None
    parts: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    noted = list(notices)
    for name, summarise in _PARTS.items():
        try:
            parts[name] = summarise(checkpoint)
        except FactUnavailable as absent:
            unavailable[name] = absent.reason
        except BaseException as error:  # noqa: BLE001 - around the code of a layout, which a plugin brings
            crash = crash_of(error)
            words = f"{crash.type}: {crash.message}"
            unavailable[name] = f"the layout crashed: {words}"
            message = f"the layout {checkpoint.layout.name} crashed when asked for {name}: {words}"
            noted.append(Notice(severity=Severity.ERROR, message=message, fatal=True, crash=crash))
    return Inspection(
        tool_version=__version__,
        checkpoint=checkpoint.path,
        layout=layout_summary(checkpoint),
        files=files,
        unavailable=unavailable,
        notices=tuple(noted),
        **parts,
    )


def _why_not(root: Root) -> str:
    match root.kind:
        case RootKind.MISSING:
            near = f"; did you mean {' or '.join(root.candidates)}?" if root.candidates else ""
            return f"{root.path} does not exist{near}"
        case RootKind.UNREADABLE:
            return f"{root.path} can't be opened: {root.error}"
        case RootKind.FILE:
            return f"{root.path} is a file; name the directory that holds the checkpoint"
        case _:
            return f"{root.path} is not a directory"


def _files(checkpoint: Checkpoint) -> FilesSummary:
    files = [e for e in checkpoint.listing if e.kind is EntryKind.FILE]
    return FilesSummary(count=len(files), nbytes=sum(e.size for e in files), truncated=checkpoint.listing.truncated)


def _progress(checkpoint: Checkpoint) -> ProgressSummary:
    found = checkpoint.progress
    return ProgressSummary(**{name: getattr(found, name) for name in ProgressSummary.model_fields})


def _resume(checkpoint: Checkpoint) -> ResumeSummary:
    plan = checkpoint.progress.plan
    if plan is None:
        raise FactUnavailable("the counters do not say where training starts again")
    return ResumeSummary(**{name: getattr(plan, name) for name in ResumeSummary.model_fields})


def _optimizer(checkpoint: Checkpoint) -> OptimizerSummary:
    found = checkpoint.optimizer
    return OptimizerSummary(
        path=found.path,
        key=found.key,
        kind=found.kind,
        groups=len(found.groups),
        parameters=sum(len(g.params) for g in found.groups),
        states=len(found.states),
        updates=found.updates,
        lrs=found.lrs,
    )


def _scheduler(checkpoint: Checkpoint) -> SchedulerSummary:
    return _scheduler_summary(checkpoint.scheduler)


def _schedulers(checkpoint: Checkpoint) -> tuple[SchedulerSummary, ...]:
    try:
        found = checkpoint.schedulers
    except FactUnavailable:  # said of `scheduler` already
        return ()
    return tuple(map(_scheduler_summary, found)) if len(found) > 1 else ()


def _scheduler_summary(found: SchedulerState) -> SchedulerSummary:
    return SchedulerSummary(**{name: getattr(found, name) for name in SchedulerSummary.model_fields})


def _scaler(checkpoint: Checkpoint) -> ScalerSummary:
    found = checkpoint.scaler
    return ScalerSummary(**{name: getattr(found, name) for name in ScalerSummary.model_fields})


def _rng(checkpoint: Checkpoint) -> RngSummary:
    found = checkpoint.rng
    return RngSummary(path=found.path, key=found.key, sources=tuple(sorted(found.sources)))


def _model(checkpoint: Checkpoint) -> ModelSummary:
    found = checkpoint.config
    said = {name: found.values.get(name) for name in ("model_type", "architectures")}
    return ModelSummary(path=found.path, key=found.key, **said)


def _weights(checkpoint: Checkpoint) -> WeightsSummary:
    found = checkpoint.weights
    tensors = found.tensors
    dtypes: Counter[str] = Counter()
    for tensor in tensors.values():
        dtypes[tensor.dtype] += tensor.numel
    others = [f.path for copy in found.alternatives for f in copy] + [f.path for f in found.unindexed]
    return WeightsSummary(
        files=tuple(f.path for f in found.files),
        index=found.index.path if found.index else None,
        tensors=len(tensors),
        parameters=sum(dtypes.values()),
        nbytes=found.nbytes,
        dtypes=dict(dtypes.most_common()),
        others=tuple(others),
    )


_PARTS: dict[str, Callable[[Checkpoint], Model | tuple[Model, ...]]] = {
    "progress": _progress,
    "resume": _resume,
    "optimizer": _optimizer,
    "scheduler": _scheduler,
    "schedulers": _schedulers,
    "scaler": _scaler,
    "rng": _rng,
    "model": _model,
    "weights": _weights,
}

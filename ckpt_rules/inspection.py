"""What a checkpoint is, as plain data: layout, progress, optimizer, weights, and where training will start again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable, UsageError
from ckpt_rules.facts.files import EntryKind, Root, RootKind
from ckpt_rules.facts.training import SchedulerState
from ckpt_rules.finding import Severity, Text, Value
from ckpt_rules.opening import layout_summary
from ckpt_rules.plugin import crash_of
from ckpt_rules.report import LayoutSummary, Notice
from ckpt_rules.version import __version__


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FilesSummary(_Model):
    """Everything that lies in the directory."""

    count: int = Field(description="Regular files, links followed.")
    nbytes: int = Field(description="Their bytes together.")
    truncated: Text | None = Field(default=None, description="Why not everything was listed.")


class ProgressSummary(_Model):
    """How far training got. Batches are forward passes, updates are optimizer updates."""

    epoch: int | None = Field(description="1-based: the epoch under way, or the last one where `complete`.")
    step: int | None = Field(description="Batches done in the epoch under way; 0 where it is complete.")
    total_batches: int | None = Field(description="Batches per epoch.")
    complete: bool = Field(description="Whether the epoch is complete.")
    fraction: float | None = Field(description="How much of the epoch is done, 0 to 1.")
    global_step: int | None = Field(description="The trainer's own global counter.")
    accumulation: int = Field(description="Batches per optimizer update.")
    batches_done: int | None = Field(description="Batches since the start of training.")
    expected_updates: int | None = Field(description="Optimizer updates that the counters imply.")
    planned_epochs: int | None
    planned_updates: int | None
    notes: tuple[Text, ...] = Field(description="How counters were read that could be read in several ways.")


class ResumeSummary(_Model):
    """Where training will start again."""

    sentence: Text
    epoch: int | None = Field(description="The 1-based epoch that starts or goes on.")
    skipped: int = Field(description="Batches of that epoch that are passed over, from its first.")
    trained: int | None = Field(description="Batches of that epoch that remain.")
    from_update: int | None = Field(description="Optimizer updates already made.")


class OptimizerSummary(_Model):
    """The optimizer's state."""

    path: Text
    key: Text
    kind: Text = Field(description="What its state looks like.")
    groups: int = Field(description="Parameter groups.")
    parameters: int = Field(description="Parameters in those groups.")
    states: int = Field(description="Parameters that it keeps state for.")
    updates: int | None = Field(description="Updates made: the most that any parameter has had.")
    lrs: tuple[Value, ...] = Field(description="The learning rate of each group, as stored.")


class SchedulerSummary(_Model):
    """The learning-rate scheduler's state, as stored."""

    path: Text
    key: Text
    kind: Text
    last_epoch: Value = Field(description="Scheduler steps done, in whatever unit it is stepped.")
    last_lr: tuple[Value, ...] = Field(description="The rate it set last, one for each group.")
    base_lrs: tuple[Value, ...] = Field(description="The rates it started from.")


class ScalerSummary(_Model):
    """The gradient scaler's state, as stored."""

    path: Text
    key: Text
    enabled: bool
    scale: Value
    growth_tracker: Value


class RngSummary(_Model):
    """State of the random-number generators."""

    path: Text
    key: Text
    sources: tuple[Text, ...] = Field(description="Of python, numpy, torch, cuda.")


class ModelSummary(_Model):
    """What the configuration says of the model, as stored."""

    path: Text
    key: Text
    model_type: Value = None
    architectures: Value = None


class WeightsSummary(_Model):
    """The weights that a loader would take."""

    files: tuple[Text, ...]
    index: Text | None = Field(description="The file that says which shard holds what.")
    tensors: int
    parameters: int = Field(description="Elements of all tensors, buffers included.")
    nbytes: int = Field(description="Their bytes.")
    dtypes: dict[Text, int] = Field(description="Elements of each dtype, most first.")
    others: tuple[Text, ...] = Field(description="Weight files that the loader passes over.")


class Inspection(_Model):
    """What `ckpt-rules inspect` prints. A part that can't be had is null, and `unavailable` says why."""

    schema_version: Literal[1] = 1
    tool_version: str
    checkpoint: Text = Field(description="The checkpoint's path, as it was given.")
    layout: LayoutSummary
    files: FilesSummary
    progress: ProgressSummary | None = None
    resume: ResumeSummary | None = None
    optimizer: OptimizerSummary | None = None
    scheduler: SchedulerSummary | None = None
    schedulers: tuple[SchedulerSummary, ...] = Field(default=(), description="Each of them, where there are several.")
    scaler: ScalerSummary | None = None
    rng: RngSummary | None = None
    model: ModelSummary | None = None
    weights: WeightsSummary | None = None
    unavailable: dict[str, Text] = Field(description="Part -> why it can't be had.")
    notices: tuple[Notice, ...] = Field(default=(), description="Plugins that failed; the answer may be wrong for it.")


def inspect_checkpoint(checkpoint: Checkpoint, notices: Sequence[Notice] = ()) -> Inspection:
    """Everything that is known about a checkpoint; `UsageError` where its path is no directory that can be listed."""
    if checkpoint.root.kind is not RootKind.DIRECTORY:
        raise UsageError(_why_not(checkpoint.root))
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
            return f"{root.path} is no directory"


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


_PARTS: dict[str, Callable[[Checkpoint], _Model | tuple[_Model, ...]]] = {
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

"""What a checkpoint is, as plain data: layout, progress, optimizer, weights, and where training will start again."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ckpt_rules.finding import Text, Value
from ckpt_rules.report import LayoutSummary, Notice


class Model(BaseModel):
    """Plain data that does not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FilesSummary(Model):
    """Everything that lies in the directory."""

    count: int = Field(description="Regular files, links followed.")
    nbytes: int = Field(description="Their bytes together.")
    truncated: Text | None = Field(default=None, description="Why not everything was listed.")


class ProgressSummary(Model):
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


class ResumeSummary(Model):
    """Where training will start again."""

    sentence: Text
    epoch: int | None = Field(description="The 1-based epoch that starts or continues.")
    skipped: int = Field(description="Batches of that epoch that are passed over, from its first.")
    trained: int | None = Field(description="Batches of that epoch that remain.")
    from_update: int | None = Field(description="Optimizer updates already made.")


class OptimizerSummary(Model):
    """The optimizer's state."""

    path: Text
    key: Text
    kind: Text = Field(description="What its state looks like.")
    groups: int = Field(description="Parameter groups.")
    parameters: int = Field(description="Parameters in those groups.")
    states: int = Field(description="Parameters that it keeps state for.")
    updates: int | None = Field(description="Updates made: the most that any parameter has had.")
    lrs: tuple[Value, ...] = Field(description="The learning rate of each group, as stored.")


class SchedulerSummary(Model):
    """The learning-rate scheduler's state, as stored."""

    path: Text
    key: Text
    kind: Text
    last_epoch: Value = Field(description="Scheduler steps done, in whatever unit it is stepped.")
    last_lr: tuple[Value, ...] = Field(description="The rate it set last, one for each group.")
    base_lrs: tuple[Value, ...] = Field(description="The rates it started from.")


class ScalerSummary(Model):
    """The gradient scaler's state, as stored."""

    path: Text
    key: Text
    enabled: bool
    scale: Value
    growth_tracker: Value


class RngSummary(Model):
    """State of the random-number generators."""

    path: Text
    key: Text
    sources: tuple[Text, ...] = Field(description="Of python, numpy, torch, cuda.")


class ModelSummary(Model):
    """What the configuration says of the model, as stored."""

    path: Text
    key: Text
    model_type: Value = None
    architectures: Value = None


class WeightsSummary(Model):
    """The weights that a loader would take."""

    files: tuple[Text, ...]
    index: Text | None = Field(description="The file that says which shard holds what.")
    tensors: int
    parameters: int = Field(description="Elements of all tensors, buffers included.")
    nbytes: int = Field(description="Their bytes.")
    dtypes: dict[Text, int] = Field(description="Elements of each dtype, most first.")
    others: tuple[Text, ...] = Field(description="Weight files that the loader passes over.")


class Inspection(Model):
    """What `ckpt-rules inspect` prints. A part that is not available is null, and `unavailable` says why."""

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
    unavailable: dict[str, Text] = Field(description="Part -> why it is not available.")
    notices: tuple[Notice, ...] = Field(default=(), description="Plugins that failed; the answer may be wrong for it.")

"""What differs between two checkpoints, as plain data. This is the JSON that `ckpt-rules diff --format json` prints."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ckpt_rules.finding import Text, Value
from ckpt_rules.report import ExitCode, Notice
from ckpt_rules.version import __version__


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Change(StrEnum):
    """What became of a file or tensor between the first checkpoint and the second."""

    ADDED = "added"
    REMOVED = "removed"
    RESHAPED = "reshaped"
    RECAST = "recast"
    CHANGED = "changed"
    NOT_COMPARED = "not compared"


class FileChange(_Model):
    """A file that is not the same in both."""

    path: Text = Field(
        description="Relative to the checkpoint; of a checkpoint that is one file, its name in the second."
    )
    change: Change
    nbytes: tuple[int | None, int | None] = Field(description="Its bytes in the first and in the second checkpoint.")
    note: Text | None = Field(default=None, description="Why the contents could not be compared.")


class TensorChange(_Model):
    """A tensor that is not the same in both; pairs are of the first and the second checkpoint.

    Norms, difference and cosine leave out the places where one of the two values is not finite.
    """

    tensor: Text = Field(description="A weight's name in the model, or another tensor's name in its file.")
    change: Change
    weight: bool = Field(description="Whether it is a weight of the model.")
    paths: tuple[Text | None, Text | None] = Field(description="The files that name it.")
    dtypes: tuple[str | None, str | None]
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    numel: int = Field(description="Elements.")
    differing: int | None = Field(default=None, description="Values that differ; null where none were compared.")
    not_finite: int = Field(default=0, description="Places where one of the two values is not finite.")
    norms: tuple[float, float] | None = Field(default=None, description="Euclidean (L2) norms.")
    difference: float | None = Field(default=None, description="The norm of the difference.")
    relative: float | None = Field(
        default=None, description="That, as a share of the first norm; null where that is 0."
    )
    cosine: float | None = Field(default=None, description="Of the angle between both; null where a norm is 0.")
    largest: float | None = Field(default=None, description="The largest absolute difference.")
    note: Text | None = Field(default=None, description="Why the values were not compared.")


class ValueChange(_Model):
    """A stored or computed value that is not the same in both; null stands for one that is not there."""

    name: Text
    values: tuple[Value, Value]


class Tensors(_Model):
    """The tensors of both checkpoints."""

    counts: tuple[int, int] = Field(description="Tensors in the first and in the second checkpoint.")
    same: int = Field(description="Those that are the same in both.")
    changes: tuple[TensorChange, ...]
    relative: float | None = Field(
        default=None, description="The norm of the difference of all weights that were compared, by their norm."
    )
    cosine: float | None = Field(default=None, description="Of the angle between all these weights.")


class Comparison(_Model):
    """What `ckpt-rules diff A B` prints. An empty section is the same in both."""

    schema_version: Literal[1] = 1
    tool_version: str = __version__
    checkpoints: tuple[Text, Text]
    layouts: tuple[str, str]
    pattern: str = Field(
        default="*", description="The glob of tensor names; where one was given, only those were compared."
    )
    values: bool = Field(default=True, description="Whether bytes were read, or only names, sizes, shapes and dtypes.")
    files: tuple[FileChange, ...] = ()
    tensors: Tensors
    sections: dict[str, tuple[ValueChange, ...]] = Field(
        default={}, description="optimizer, scheduler, scaler, rng, progress, config: what differs in each."
    )
    notices: tuple[Notice, ...] = ()

    @property
    def differ(self) -> bool:
        """Whether something is known to differ."""
        return any(change is not Change.NOT_COMPARED for change in self._changes) or any(self.sections.values())

    @property
    def not_compared(self) -> int:
        """Files and tensors of which it is not known whether they differ."""
        return self._changes.count(Change.NOT_COMPARED)

    @property
    def _changes(self) -> list[Change]:
        return [file.change for file in self.files] + [tensor.change for tensor in self.tensors.changes]

    @property
    def exit_code(self) -> ExitCode:
        """0 where they are the same, 1 where they differ, 2 where that is not known."""
        if any(notice.fatal for notice in self.notices):
            return ExitCode.UNKNOWN
        if self.differ:
            return ExitCode.FAILED
        return ExitCode.UNKNOWN if self.not_compared else ExitCode.PASSED

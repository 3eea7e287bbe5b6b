"""What a rule says: a problem at a place, which the engine stamps into a finding."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    """How bad a finding is. Errors fail a run, warnings fail a strict run, information never does."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Place(BaseModel):
    """Where in the checkpoint something is wrong, as exactly as the rule knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(default=".", description="File or directory, relative to the checkpoint, with forward slashes.")
    tensor: str | None = Field(default=None, description="Name of the tensor.")
    key: str | None = Field(default=None, description="Key inside the file, such as `optimizer.param_groups[0].lr`.")
    offset: int | None = Field(default=None, ge=0, description="Byte in the file, counted from its start.")

    def __str__(self) -> str:
        parts = [self.path]
        if self.tensor is not None:
            parts.append(f"tensor {self.tensor}")
        if self.key is not None:
            parts.append(f"key {self.key}")
        if self.offset is not None:
            parts.append(f"byte {self.offset}")
        return ", ".join(parts)


class Problem(BaseModel):
    """One thing that is wrong, as a rule yields it.

    `message` is one lower-case sentence with the numbers in it; `help` says what to do next; `data` holds the same
    numbers for machines. `severity` overrides the rule's default for this one problem (a drift of 5,000 updates is
    worse than one of 30); a severity that the ruleset sets for the rule outranks both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    message: str
    place: Place = Place()
    help: str | None = None
    severity: Severity | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class Finding(BaseModel):
    """A problem with the engine's stamp: which rule of which plugin found it, and how severe it is in this run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = Field(description="Id of the rule, `family/defect`.")
    plugin: str = Field(description="Name of the plugin that brought the rule.")
    severity: Severity = Field(description="Effective severity: ruleset and strict mode are already applied.")
    place: Place
    message: str
    help: str | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    ignored: str | None = Field(default=None, description="The reason that the ruleset gives for ignoring it.")

"""What a rule says: a problem at a place, which the engine stamps into a finding."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_value(value: object) -> Any:
    """The nearest thing that JSON has: what a checkpoint holds may be NaN, a thousand digits long, or no value at all."""
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 64 else f"an integer of {value.bit_length():,} bits"
    if isinstance(value, dict):
        return {_encodable(str(k)): _json_value(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_json_value(v) for v in value]
    if isinstance(value, tuple):
        return tuple(_json_value(v) for v in value)
    if isinstance(value, set | frozenset):
        return sorted(map(_json_value, value), key=str)
    return _encodable(str(value)[:200])


Text = Annotated[str, PlainSerializer(_encodable, return_type=str, when_used="json")]
"""Text that may come from a checkpoint. Undecodable bytes of a file name stay as they are in Python, and read `\\udcff` in JSON."""

Value = Annotated[Any, BeforeValidator(_json_value)]
"""One value as it is stored in a checkpoint, or the nearest thing that JSON can carry."""

Data = Annotated[dict[str, Any], BeforeValidator(_json_value)]
"""Numbers and names for machines; whatever JSON can't carry is replaced by the nearest thing that it can."""


class Severity(StrEnum):
    """How bad a finding is. Errors fail a run, warnings fail a strict run, information never does."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Place(BaseModel):
    """Where in the checkpoint something is wrong, as exactly as the rule knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Text = Field(default=".", description="File or directory, relative to the checkpoint, with forward slashes.")
    tensor: Text | None = Field(default=None, description="Name of the tensor.")
    key: Text | None = Field(default=None, description="Key inside the file, such as `optimizer.param_groups[0].lr`.")
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

    message: Text
    place: Place = Place()
    help: Text | None = None
    severity: Severity | None = None
    data: Data = Field(default_factory=dict)


class Finding(BaseModel):
    """A problem with the engine's stamp: which rule of which plugin found it, and how severe it is in this run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = Field(description="Id of the rule, `family/defect`.")
    plugin: str = Field(description="Name of the plugin that brought the rule.")
    severity: Severity = Field(description="Effective severity: ruleset and strict mode are already applied.")
    place: Place
    message: Text
    help: Text | None = None
    data: Data = Field(default_factory=dict)
    ignored: Text | None = Field(default=None, description="The reason that the ruleset gives for ignoring it.")

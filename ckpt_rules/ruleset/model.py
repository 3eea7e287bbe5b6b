"""The keys of a ruleset file, as pydantic models: what may be written, with the texts that the JSON Schema shows."""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from ckpt_rules.limits import DEFAULT_LIMITS, Limits

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Level(StrEnum):
    """A severity, or `off`: the rule is not selected."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    OFF = "off"


def _day(value: Any) -> Any:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("a day such as 2027-06-30 is expected")
    return value


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("it has no value")
    return value


def _long_form(value: Any) -> Any:
    return {"severity": value} if isinstance(value, str) else value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# What may be left out, but not written without a value: an empty `expires:` is not a decision.
Given = BeforeValidator(_given)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Purpose(StrEnum):
    """What somebody wants to do with a checkpoint that passes."""

    RESUME = "resume"
    LOAD = "load"
    PUBLISH = "publish"


class RuleEntry(_Model):
    """What a ruleset says about one rule, in the long form."""

    severity: Annotated[Level | None, Given] = Field(
        default=None,
        description="Severity of every finding of this rule; `off` deselects it. Without it, the rule's own.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="The rule's options; see `ckpt-rules rule ID`.")


class IgnoreEntry(_Model):
    """Findings that the team accepts. A finding must match all of `rule`, `path` and `tensor` that are given."""

    rule: Text = Field(description="Id of a rule, or a glob of ids.")
    path: Annotated[Text | None, Given] = Field(
        default=None, description="Glob of files, relative to the checkpoint; `*` crosses slashes."
    )
    tensor: Annotated[Text | None, Given] = Field(default=None, description="Glob of tensor names.")
    reason: Text = Field(description="Why these findings are acceptable; shown wherever they are.")
    expires: Annotated[date | None, BeforeValidator(_day)] = Field(
        default=None, description="Last day of the ignore; past it the findings are back, with a warning."
    )


Entry = Annotated[RuleEntry, BeforeValidator(_long_form)]


class RulesetFile(_Model):
    """Which rules apply to a checkpoint, how severe they are, with what options."""

    description: str = Field(default="", description="What this ruleset is for, in one line.")
    extends: list[Text] = Field(
        default_factory=list,
        description="Rulesets to start from: a built-in name, plugin:name, or a path relative to this file; "
        "left to right, then this file.",
    )
    requires: list[Text] = Field(
        default_factory=list,
        description="Distributions that must be installed, such as ckpt-rules-acme>=1.2; absent, the run ends with 2.",
    )
    plugins: list[Text] = Field(
        default_factory=list, description="Python files with rules of your own, relative to this file."
    )
    select: list[Text] = Field(
        default_factory=list,
        description="Globs of rule ids, or tag:NAME, to select on top of what is inherited.",
    )
    exclude: list[Text] = Field(
        default_factory=list, description="Globs of rule ids, or tag:NAME, to deselect, inherited ones too."
    )
    rules: dict[str, Entry] = Field(
        default_factory=dict,
        description="Single rules by id: a severity, or a mapping with severity and options. Writing a rule selects it.",
    )
    limits: Limits = Field(
        default=DEFAULT_LIMITS,
        description="How much of a checkpoint is read; real checkpoints stay below the defaults.",
    )
    purpose: Annotated[Purpose, Given] = Field(
        default=Purpose.RESUME,
        description="What a pass means: that training can resume, that the weights can be loaded, or that it can be published.",
    )
    layout: Annotated[Text | None, Given] = Field(
        default=None,
        description="Name of the layout to read checkpoints as; `any` judges their files alone, and says nothing of a resume.",
    )
    strict: bool = Field(default=False, description="Warnings count as errors, those about the ruleset itself too.")
    ignore: list[IgnoreEntry] = Field(
        default_factory=list,
        description="Findings that you accept; only in the file that is named on the command line.",
    )

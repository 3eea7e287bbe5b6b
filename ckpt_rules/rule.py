"""The base class of every check."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from ckpt_rules.facts.values import Wanted
from ckpt_rules.finding import Problem, Severity

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint

RULE_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*/[a-z][a-z0-9]*(-[a-z0-9]+)*")
HEADINGS = ("What it checks", "Why it matters", "How to repair")


class Reads(StrEnum):
    """What a rule's facts cost: names and sizes only, the headers of files, or every byte."""

    LISTING = "listing"
    HEADERS = "headers"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class RulePage:
    """A rule's docstring, taken apart: the first line, and the Markdown text below each heading."""

    summary: str
    sections: dict[str, str]


class Rule(BaseModel):
    """One check over the facts of a checkpoint.

    Subclass it, set `id`, write the docstring (a summary line, then the headings of `HEADINGS`) and `check`. The
    fields of the subclass are its options. An instance is frozen and keeps nothing between checkpoints.

    `applies_to` names the layouts that the rule is meant for, none meaning all of them: the engine skips it elsewhere, and
    says so. `compares` is for rules that ask for `Checkpoint.previous`: where the user names an earlier save, those of them
    that read no bytes run whatever the ruleset selects. `last` is for rules about the reading itself
    (`Checkpoint.read_errors`, `Checkpoint.look_again`): they run after all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: ClassVar[str]
    severity: ClassVar[Severity] = Severity.ERROR
    tags: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[Reads] = Reads.HEADERS
    applies_to: ClassVar[frozenset[str]] = frozenset()
    last: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    former_ids: ClassVar[tuple[str, ...]] = ()

    def check(self, checkpoint: Checkpoint) -> Iterable[Problem]:
        """Yield one `Problem` for each thing that is wrong; nothing means that the checkpoint passed.

        A `FactUnavailable` that a fact raises may pass through: the engine counts the rule as skipped.
        """
        raise NotImplementedError(f"{type(self).__name__} has no check method")

    def wanted(self, checkpoint: Checkpoint) -> Wanted:
        """What a rule that reads bytes wants computed in the one pass over them, which comes before its `check`.

        `check` finds it with `Checkpoint.measured` and `Checkpoint.read_all`.
        """
        return Wanted()

    def wanted_before(self, checkpoint: Checkpoint) -> Wanted:
        """Like `wanted`, for `checkpoint.previous`; its bytes are read after the checkpoint's own."""
        return Wanted()

    @classmethod
    def why_not_for(cls, layout: str) -> str | None:
        """Why the rule is skipped for the layout of this name; None where it applies."""
        if not cls.applies_to or layout in cls.applies_to:
            return None
        *others, last = sorted(cls.applies_to)
        return f"for the layouts {', '.join(others)} and {last} alone" if others else f"for the layout {last} alone"

    @classmethod
    def family(cls) -> str:
        """The part of the id before the slash."""
        return cls.id.partition("/")[0]

    @classmethod
    @cache
    def page(cls) -> RulePage:
        """The docstring as summary and sections."""
        summary, _, body = (inspect.getdoc(cls) or "").partition("\n")
        parts = re.split(r"^## +(.+)$", body, flags=re.MULTILINE)
        return RulePage(summary.strip(), {h.strip(): t.strip() for h, t in zip(parts[1::2], parts[2::2], strict=True)})

"""Every exception of ckpt-rules.

CkptRulesError                 the user can act on it; the CLI prints it without a traceback
├── UsageError                 a path, flag or name that is not valid                         exit 2
├── RulesetError               mistakes in YAML, each with file, line and column                exit 2
├── PluginError                a plugin that clashes, is missing or can't be loaded             exit 2
└── CheckpointInvalid          raised by `quick_verify_checkpoint`; carries the report

LayoutFault                    a layout that answers with something else than was asked for; blamed on the layout
FactUnavailable                raised where a fact is asked for that is not available; the rule is skipped
FormatError                    raised and caught inside one reader; callers get a `ReadProblem`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ckpt_rules.report import Report


class CkptRulesError(Exception):
    """Something that the user can put right; its text is the whole message."""


class UsageError(CkptRulesError):
    """The command or call itself is not valid."""


class PluginError(CkptRulesError):
    """A plugin clashes with another, is required but absent, or can't be loaded."""


@dataclass(frozen=True, slots=True)
class RulesetProblem:
    """One mistake in a ruleset file. `line` and `column` are 1-based; 0 where the file has no such place."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class RulesetError(CkptRulesError):
    """All mistakes that were found in the ruleset files of one run, sorted by file and line."""

    def __init__(self, problems: Sequence[RulesetProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        super().__init__("\n".join(map(str, self.problems)))


class CheckpointInvalid(CkptRulesError):
    """The checkpoint did not pass; `report` holds every outcome."""

    def __init__(self, report: Report) -> None:
        self.report = report
        super().__init__(report.headline())


class FactUnavailable(Exception):
    """The checkpoint does not have this fact, or it cannot be read.

    `blocked` tells the two reasons apart: False, the checkpoint simply has no such thing (a rule about it does not
    apply); True, it should be there but `path` is damaged or unreadable, so that the rule could not do its work.
    """

    # A plugin may give anything, or derive a class that sets nothing, and all of it ends up in the report.
    reason: str = "no reason was given"
    path: str | None = None
    blocked: bool = False

    def __init__(self, reason: str, *, path: str | None = None, blocked: bool = False) -> None:
        self.reason = str(reason)
        self.path = None if path is None else str(path)
        self.blocked = bool(blocked)
        super().__init__(reason)


class LayoutFault(Exception):
    """A layout that answers a fact with something else than the fact is; the fault is the layout's, not the rule's that asked."""

    def __init__(self, layout: str, reason: str) -> None:
        self.layout = layout
        super().__init__(f"the layout {layout} is wrong: {reason}")


class FormatError(Exception):
    """Bytes that do not follow their format; `offset` is the byte in the file where that was noticed."""

    def __init__(self, reason: str, offset: int | None = None) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason)

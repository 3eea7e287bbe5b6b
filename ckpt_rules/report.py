"""What became of one run over one checkpoint. This is the JSON that `--format json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ckpt_rules.finding import Data, Finding, Severity, Text
from ckpt_rules.printable import printable, sentence

SCHEMA_VERSION = 1


class ExitCode(IntEnum):
    """What a process says when it ends. UNKNOWN outranks FAILED: a run that could not do its work proves nothing."""

    PASSED = 0
    FAILED = 1
    UNKNOWN = 2


class Verdict(StrEnum):
    """The answer to 'is this checkpoint good?'."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that stands for this answer."""
        return ExitCode[self.name]


class Status(StrEnum):
    """What became of one rule."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CRASHED = "crashed"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Crash(_Model):
    """A rule, layout or plugin that raised instead of answering."""

    type: str = Field(description="Class of the exception.")
    message: Text = Field(description="Its text.")
    traceback: Text = Field(description="Where it was raised, for the author of the plugin.")
    layout: str | None = Field(None, description="The layout that is to blame, where a rule only asked it for a fact.")


class Outcome(_Model):
    """What became of one selected rule."""

    rule: str = Field(description="Id of the rule, `family/defect`.")
    plugin: str = Field(description="Name of the plugin that brought the rule.")
    summary: str = Field(description="First line of the rule's page: what it finds.")
    severity: Severity = Field(description="Severity in this run; single findings may differ.")
    options: Data = Field(default_factory=dict, description="Options of the rule that differ from their defaults.")
    status: Status
    findings: tuple[Finding, ...] = ()
    reason: Text | None = Field(
        default=None,
        description="Why it was skipped, or stopped before its end; of a crashed one, that it took longer than the rule timeout.",
    )
    blocked_by: Text | None = Field(
        default=None, description="The damaged or unreadable file that kept a skipped rule from its work."
    )
    crash: Crash | None = None
    seconds: float = Field(
        default=0.0, description="Wall-clock time of the rule, facts it was first to ask for included."
    )


class Notice(_Model):
    """Something about the run itself: a plugin that failed to load, an ignore that matched nothing."""

    severity: Severity
    message: Text
    fatal: bool = Field(default=False, description="True where the run could not do its work: the verdict is unknown.")
    crash: Crash | None = None


class LayoutSummary(_Model):
    """Which layout the directory was read as, and why."""

    name: str = Field(description="The layout's name, or `none` where the path is not a directory that can be listed.")
    title: str
    signs: tuple[Text, ...] = Field(default=(), description="What it was recognised by.")


class RulesetSummary(_Model):
    """The ruleset that was in force."""

    name: Text
    strict: bool = Field(description="Whether warnings count as errors.")
    narrowed: bool = Field(default=False, description="Whether `--select` or `--exclude` left rules of it out.")


class Counts(_Model):
    """Rules by what became of them, and findings by severity; ignored findings are counted apart."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    crashed: int = 0
    errors: int = 0
    warnings: int = 0
    infos: int = 0
    ignored: int = 0


class Report(_Model):
    """Every outcome of one run over one checkpoint, and the verdict."""

    schema_version: Literal[1] = 1
    tool_version: str
    checkpoint: Text = Field(description="The checkpoint's path, as it was given.")
    layout: LayoutSummary
    ruleset: RulesetSummary
    verdict: Verdict
    reason: Text = Field(description="The verdict in one sentence, without a full stop.")
    resume: Text | None = Field(default=None, description="Where training starts again, in words; null where unknown.")
    counts: Counts
    outcomes: tuple[Outcome, ...]
    notices: tuple[Notice, ...] = ()
    seconds: float = Field(description="Wall-clock time of the whole run.")

    @property
    def findings(self) -> list[Finding]:
        """All findings that count, most severe first, ignored ones left out."""
        order = list(Severity)
        found = [f for o in self.outcomes for f in o.findings if f.ignored is None]
        return sorted(found, key=lambda f: order.index(f.severity))

    @property
    def passed(self) -> bool:
        """Whether every selected rule did its work and the checkpoint passed."""
        return self.verdict is Verdict.PASSED

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that this report calls for."""
        return self.verdict.exit_code

    def answer(self) -> Answer:
        """The verdict alone, which is kept of each of thousands of saves."""
        return Answer(self.checkpoint, self.layout.name, self.verdict, self.reason)

    def brief(self) -> Report:
        """The same with no finding but the gravest, and no other outcome."""
        worst = next(iter(self.findings), None)
        kept = next((o for o in self.outcomes if worst in o.findings), None)
        outcomes = () if kept is None else (kept.model_copy(update={"findings": (worst,)}),)
        return self.model_copy(update={"outcomes": outcomes})

    def headline(self) -> str:
        """One line for a log: the path, the verdict and the first finding, with nothing that a terminal would obey."""
        worst = next(iter(self.findings), None)
        detail = f": {worst.rule}: {sentence(worst.message)} ({printable(str(worst.place))})" if worst else ""
        return f"{printable(self.checkpoint)} {self.verdict.value}: {sentence(self.reason)}{detail}"


class Answer(NamedTuple):
    """The verdict over one checkpoint, read as `layout`, with its reason."""

    checkpoint: str
    layout: str
    verdict: Verdict
    reason: str


class Reports(_Model):
    """Several checkpoints verified in one run. The verdict is the worst of all."""

    schema_version: Literal[1] = 1
    reports: tuple[Report, ...]
    newest: dict[Text, Text | None] = Field(
        default_factory=dict,
        description="Of each run directory that was named, the newest checkpoint in it that passed; null where none did.",
    )
    verdict: Verdict


def worst_verdict(reports: Sequence[Report | Answer]) -> Verdict:
    """Unknown if any is unknown, else failed if any failed, else passed; unknown for no report at all."""
    return max((r.verdict for r in reports), key=lambda v: v.exit_code, default=Verdict.UNKNOWN)

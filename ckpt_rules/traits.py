"""What layouts declare: how sure one is of a directory, what a resume needs there, and what holds for all its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, TypeVar

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.fact import Fact
from ckpt_rules.finding import Severity

T = TypeVar("T")

ANY = "any"
"""The name by which a user asks that the files alone be judged, whatever layout they have."""


@dataclass(frozen=True, slots=True)
class Match:
    """How sure a layout is that a directory is its own.

    score: 1 (a faint sign) to 100 (nothing else can be meant); the highest wins
    signs: what it was recognised by, for `inspect`
    """

    score: int
    signs: tuple[str, ...]


TO_RESUME_OR_LOAD = frozenset({"resume", "load"})
"""The purposes of a file without which not even the weights can be loaded."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A file that the layout can't resume without.

    names:    any one of them will do; the first is the usual one
    why:      what the trainer does without it, one sentence without a full stop
    severity: of its absence
    commits:  whether the trainer writes it last, so that its absence says that the save never finished
    purposes: what it is needed for: to `resume`, to `load` the weights, or both
    elsewhere: why its absence here says nothing, where it may lie on another node's disk; what is checked is then unknown
    """

    names: tuple[str, ...]
    why: str
    severity: Severity = Severity.ERROR
    commits: bool = False
    purposes: frozenset[str] = frozenset({"resume"})
    elsewhere: str | None = None


class LayoutTraits:
    """What a layout declares of itself, once for all checkpoints. See `Layout`, which answers for one of them."""

    name: ClassVar[str]
    title: ClassVar[str]

    one_file: ClassVar[bool] = False
    """Whether a single file can be a checkpoint of this layout; it is listed as a directory that holds nothing else."""

    save_names: ClassVar[tuple[str, ...]] = ()
    """Names that the trainer gives its saves, such as `snap_{step}` or `*-{step}-state`: `{step}` stands for the number by which
    they follow each other, `*` for any text. They count beside the usual ones (`checkpoint-500`, `step_1000`, `epoch=3`)."""

    save_files: ClassVar[tuple[str, ...]] = ()
    """Where a save is several files in the directory of the run, their names, such as `model_{step}.pt`, `meta_{step}.json`: those
    with one number are one save, and to all who look into it a directory that holds nothing else. The first stands for it."""

    numbered_by_save: ClassVar[bool] = False
    """Whether the number in a name such as `checkpoint_7` counts saves, and says nothing of steps."""

    own_loader: ClassVar[tuple[str, ...]] = ()
    """Globs of files the trainer loads with `weights_only=False`; globals that torch.load refuses are fine there."""

    refused: ClassVar[tuple[str, ...]] = ()
    """Globs of importable names, `torch.optim.*`, that even this loader of its own refuses."""

    unread: ClassVar[tuple[str, ...]] = ()
    """Globs of files that neither a resume nor a loading of the weights needs, such as the arguments of the run: damage to
    them is a warning."""

    hand_written: ClassVar[bool] = False
    """Whether the users' own scripts write such saves, rather than a library's trainer: objects of any class may then lie in the
    state."""

    loads_as_configured: ClassVar[bool] = False
    """Whether a resume looks for the weights by the names that the model class in config.json gives them; what lies under
    other names is then not restored."""

    reads_weights: ClassVar[bool] = False
    """Whether a save is understood only with weights: where none are found that can be read, the verdict is unknown."""

    resumable: ClassVar[bool] = True
    """Whether such a directory can hold a training state. One that can't, a final model or adapter, is often written above the
    checkpoints of its run, and does not hide them. See `nothing_to_resume`."""

    holds: ClassVar[str] = ""
    """What such a directory holds, where it is not `resumable`: `an adapter`, `a pipeline`."""

    def severity_of_damage(self, path: str) -> Severity | None:
        """A warning for damage to a file that nothing needs; None, which leaves it to the rule, for any other."""
        return Severity.WARNING if any(fnmatchcase(path, glob) for glob in self.unread) else None

    def recognise(self, checkpoint: Any) -> Match | None:
        """How well a directory fits, or None."""
        raise NotImplementedError

    @property
    def ceiling(self) -> int:
        """The highest score that `recognise` can give."""
        return 100

    def nothing_to_resume(self, checkpoint: Any) -> str | None:
        """Why such a directory never held a training state, one sentence without a full stop; None where it may hold one."""
        return None

    def answer(self, fact: Fact[T], checkpoint: Any) -> T:
        """What the layout says of a fact of one checkpoint; FactUnavailable where it has nothing to say."""
        raise NotImplementedError


class _NoLayout(LayoutTraits):
    name = "files"
    title = "plain files"

    def recognise(self, checkpoint: Any) -> Match | None:
        """How well a directory fits, or None."""
        raise NotImplementedError

    def nothing_to_resume(self, checkpoint: Any) -> str | None:
        """Why such a directory never held a training state, one sentence without a full stop; None where it may hold one."""
        return None

    def answer(self, fact: Fact[T], checkpoint: Any) -> T:
        raise FactUnavailable(f"no layout was asked for the {fact.what.removeprefix('the ')}")


NO_LAYOUT = _NoLayout()
"""That of a checkpoint until a layout is chosen."""

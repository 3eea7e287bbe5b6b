"""How one trainer lays a checkpoint out: the base class of every layout, and the one for directories of no known kind."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, NoReturn

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.finding import Severity
from ckpt_rules.readers.state_dicts import parts as state_dicts
from ckpt_rules.signature import Match, best

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.loaders import DataLoaders
    from ckpt_rules.facts.pointers import Pointer
    from ckpt_rules.facts.ranks import Ranks
    from ckpt_rules.facts.tensors import Weights
    from ckpt_rules.facts.training import (
        Contradiction,
        ModelConfig,
        OptimizerState,
        Progress,
        Recorded,
        RngState,
        ScalerState,
        SchedulerState,
        TrainingState,
    )
    from ckpt_rules.facts.values import Master
    from ckpt_rules.signature import Signature


ANY = "any"
"""The name by which a user asks that the files alone be judged, whatever layout they have."""


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


class Layout:
    """One trainer's way to write a checkpoint. Subclass it and say where each fact is found.

    A method that has nothing to give raises `FactUnavailable`; the rules that ask for it are then skipped. What is read
    through `checkpoint` (`torch_file`, `json`, `safetensors`) is read once, whoever asks.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    signatures: ClassVar[tuple[Signature, ...]] = ()
    """What such a directory is recognised by; the one that fits best counts. Those that open no file come first."""

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
    """Globs of files that the trainer reads without torch's restraint: what `torch.load` refuses by default stops nobody
    there."""

    refused: ClassVar[tuple[str, ...]] = ()
    """Globs of importable names, `torch.optim.*`, that even this loader of its own refuses."""

    unread: ClassVar[tuple[str, ...]] = ()
    """Globs of files that neither a resume nor a loading of the weights needs, such as the arguments of the run: damage to
    them is a warning."""

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

    def nothing_to_resume(self, checkpoint: Checkpoint) -> str | None:
        """Why such a directory never held a training state, one sentence without a full stop; None where it may hold one."""
        if self.resumable:
            return None
        return (
            f"the directory holds {self.holds} and no training state"
            if self.holds
            else f"{self.title}: no training state"
        )

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """How well the directory fits: the best of `signatures`. Overridden where no table can say it."""
        return best(self.signatures, checkpoint)

    @property
    def ceiling(self) -> int:
        """The highest score that `recognise` can give: it need not be asked where another layout has a higher one."""
        by_table = type(self).recognise is Layout.recognise
        return max((signature.ceiling for signature in self.signatures), default=0) if by_table else 100

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """Files that a resume needs, in the order a user should look at them."""
        return ()

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The model weights that this trainer's loader would take."""
        from ckpt_rules.weights import find_weights

        return find_weights(checkpoint)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary that training resumes from."""
        self._absent("training state")

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """The optimizer's state."""
        state = checkpoint.state
        return state_dicts.optimizer(state.get("optimizer"), state.path, state.key_of("optimizer"))

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Every optimizer, where a trainer may keep several; `optimizer` is for the only one."""
        return (checkpoint.optimizer,)

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """The learning-rate scheduler's state."""
        state = checkpoint.state
        return state_dicts.scheduler(state.get("scheduler"), state.path, state.key_of("scheduler"))

    def schedulers(self, checkpoint: Checkpoint) -> tuple[SchedulerState, ...]:
        """Every scheduler, where a trainer may keep several; `scheduler` is for the only one."""
        return (checkpoint.scheduler,)

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """The gradient scaler's state."""
        state = checkpoint.state
        return state_dicts.scaler(state.get("scaler"), state.path, state.key_of("scaler"))

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """The state of the random-number generators."""
        state = checkpoint.state
        return state_dicts.rng(state.get("rng"), state.path, state.key_of("rng"))

    def rngs(self, checkpoint: Checkpoint) -> tuple[RngState, ...]:
        """That of every rank, where a trainer keeps one for each; `rng` is the first."""
        return (checkpoint.rng,)

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """The model's configuration."""
        return state_dicts.config_file(checkpoint.json("config.json"))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters as they are written, valid or not."""
        self._absent("recorded progress")

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """How far training got; FactUnavailable where the recorded counters make no sense."""
        self._absent("recorded progress")

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Counters that can't both be right, by what only this trainer's arithmetic can tell."""
        return ()

    def dataloaders(self, checkpoint: Checkpoint) -> DataLoaders:
        """What the data loaders kept of their position, and where the trainer's own counters are."""
        self._absent("state of data loaders")

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """What each rank wrote, and how many ranks there were."""
        self._absent("files of several ranks")

    def pointers(self, checkpoint: Checkpoint) -> tuple[Pointer, ...]:
        """Files in the checkpoint and beside it that name a save."""
        return ()

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...]:
        """The float32 master copies that the optimizer keeps of weights which are saved beside them."""
        self._absent("float32 master copies of its weights")

    def _absent(self, what: str) -> NoReturn:
        raise FactUnavailable(f"the layout {self.name} has no {what}")


class PlainFiles(Layout):
    """A directory that no layout recognises: its files are checked, and whatever weights they hold."""

    name = "files"
    title = "plain files"

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """Never: the engine falls back to it."""
        return None


class AnyFiles(PlainFiles):
    """What `--layout any` asks for: files and weights are judged, and nothing is said of a resume."""

    name = ANY
    title = "any layout: files alone"

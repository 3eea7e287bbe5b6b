"""How one trainer lays a checkpoint out: the base class of every layout, and the one for directories of no known kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NoReturn, TypeVar, cast

from ckpt_rules.checkpoint import Checkpoint
from ckpt_rules.errors import FactUnavailable
from ckpt_rules.fact import Fact
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
from ckpt_rules.known_facts import KNOWN
from ckpt_rules.readers import state_dicts
from ckpt_rules.signature import Signature, best
from ckpt_rules.traits import ANY, LayoutTraits, Match, Requirement
from ckpt_rules.weights import find_weights

T = TypeVar("T")


class Layout(LayoutTraits):
    """One trainer's way to write a checkpoint. Subclass it and say where each fact is found.

    A method that has nothing to give raises `FactUnavailable`; the rules that ask for it are then skipped. What is read
    through `checkpoint.files` (`torch_file`, `json`, `safetensors`) is read once, whoever asks.

    The facts that come with ckpt-rules are answered by the methods below. Those that plugins bring are answered by
    functions of a checkpoint in `answers`, which base classes pass on.
    """

    answers: ClassVar[Mapping[Fact[Any], Callable[[Checkpoint], Any]]] = {}

    signatures: ClassVar[tuple[Signature, ...]] = ()
    """What such a directory is recognised by; the one that fits best counts. Those that open no file come first."""

    def answer(self, fact: Fact[T], checkpoint: Checkpoint) -> T:
        """What the layout, or else the fact itself, says of a checkpoint; FactUnavailable where neither has an answer."""
        for kind in type(self).__mro__:
            own = vars(kind).get("answers", {}).get(fact)
            if own is not None:
                return cast("T", own(checkpoint))
            if fact in KNOWN and fact.name in vars(kind):
                return cast("T", getattr(self, fact.name)(checkpoint))
        if fact.default is None:
            raise FactUnavailable(f"the layout {self.name} has no {fact.what.removeprefix('the ')}")
        return fact.default(checkpoint)

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
        return state_dicts.config_file(checkpoint.files.json("config.json"))

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters as they are written, valid or not."""
        self._absent("recorded progress")

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """How far training got; FactUnavailable where the recorded counters are not valid."""
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


def missing_requirements(checkpoint: Checkpoint) -> tuple[Requirement, ...]:
    """The requirements of its layout that no file meets."""
    return checkpoint.fact(_missing_requirements)


def _missing_requirements(checkpoint: Checkpoint) -> tuple[Requirement, ...]:
    paths = [entry.path for entry in checkpoint.listing]
    return tuple(
        needed
        for needed in checkpoint.requirements
        if not any(fnmatchcase(path, name) for path in paths for name in needed.names)
    )


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

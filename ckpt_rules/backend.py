"""Who keeps model and optimizer in the place of a trainer: FSDP, DeepSpeed, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ckpt_rules.facts.ranks import RankFiles, Ranks

if TYPE_CHECKING:
    from ckpt_rules.checkpoint import Checkpoint
    from ckpt_rules.facts.tensors import Weights
    from ckpt_rules.facts.training import Contradiction, OptimizerState, Recorded, ScalerState, SchedulerState
    from ckpt_rules.facts.values import Master


class Backend:
    """What is kept in a form that several trainers share; a layout asks it, and answers itself where the answer is None.

    This one keeps nothing. A method of another raises FactUnavailable for what ought to be there and is not available.
    """

    own_loader: ClassVar[tuple[str, ...]] = ()
    """As `Layout.own_loader`, of the files that it writes."""

    def __bool__(self) -> bool:
        """Whether it keeps anything."""
        return False

    def weights(self, checkpoint: Checkpoint) -> Weights | None:
        """The model's weights."""
        return None

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...] | None:
        """Each optimizer; one in pieces, as each rank has it."""
        return None

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState | None:
        """The scheduler that it steps itself."""
        return None

    def scaler(self, checkpoint: Checkpoint) -> ScalerState | None:
        """The gradient scaler."""
        return None

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...] | None:
        """Its float32 copies of the weights."""
        return None

    def counted(self, checkpoint: Checkpoint) -> tuple[str, int, int] | None:
        """A file, the steps counted there, and how many of them made no update."""
        return None

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """Counters of its own that can't both be right."""
        return ()

    def processes(self, checkpoint: Checkpoint) -> int:
        """The least number of processes that can have written what is there; 0 where nothing says it."""
        return 0

    def ranks(
        self, checkpoint: Checkpoint, own: tuple[RankFiles, ...], sizes: tuple[Recorded, ...], count: int
    ) -> Ranks:
        """What each rank wrote.

        own, sizes: files of the trainer's own, and the numbers of ranks that it recorded
        count:      ranks by what the trainer says; 0 where it says nothing
        """
        return Ranks(sizes, own)

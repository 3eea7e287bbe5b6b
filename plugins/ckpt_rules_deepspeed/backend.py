"""What DeepSpeed wrote into a directory of `save_state` or of the Trainer: the facts of its saves, taken together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ckpt_rules import (
    Backend,
    Checkpoint,
    Contradiction,
    FactUnavailable,
    Master,
    OptimizerState,
    RankFiles,
    Ranks,
    Recorded,
    ScalerState,
    SchedulerState,
    WeightFile,
    Weights,
    state_dicts,
)
from ckpt_rules_deepspeed.files import Saved
from ckpt_rules_deepspeed.masters import masters_of
from ckpt_rules_deepspeed.progress import contradictions_in
from ckpt_rules_deepspeed.ranks import ranks_of
from ckpt_rules_deepspeed.states import counted, loss_scaler, model_state, optimizers, readable
from ckpt_rules_deepspeed.weights import weights_of


@dataclass(frozen=True, slots=True)
class Zero(Backend):
    """DeepSpeed's saves, one for each model; none where it took no part."""

    own_loader: ClassVar[tuple[str, ...]] = ("*/*model_states.pt", "*/*optim_states.pt")

    saves: tuple[Saved, ...]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.saves)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """The weights of every save; the names of any but the first are led by its directory."""
        files: list[WeightFile] = []
        for number, saved in enumerate(self.saves):
            lead = f"{saved.folder.rstrip('/')}." if number else ""
            found = weights_of(checkpoint, saved).files
            files += [replace(f, tensors={f"{lead}{name}": t for name, t in f.tensors.items()}) for f in found]
        if not files:
            raise FactUnavailable("there are no model weights")
        return Weights(tuple(files))

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """The optimizer of each rank of each save; FactUnavailable where there is none."""
        found = tuple(o for saved in self.saves if not saved.universal for o in optimizers(checkpoint, saved))
        if not found:
            raise FactUnavailable("there is no optimizer")
        return found

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """The scheduler that DeepSpeed steps itself; FactUnavailable where the script does, or where there are several saves."""
        if len(self.saves) != 1:
            raise FactUnavailable(f"there are {len(self.saves):,} schedulers, and nothing says which one is meant")
        path, values = model_state(checkpoint, self.saves[0])
        return state_dicts.scheduler(values.get("lr_scheduler"), path, "lr_scheduler")

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """A dynamic loss scaler, which only fp16 has."""
        for saved in self.saves:
            path, key, scale, dynamic = loss_scaler(checkpoint, saved)
            if dynamic:
                return ScalerState(path, key, True, scale)
        raise FactUnavailable("there is no dynamic loss scale")

    def counted(self, checkpoint: Checkpoint) -> tuple[str, int, int] | None:
        """Of the only save: the file, the steps that DeepSpeed counted, and how many of them overflowed; None where it says nothing."""
        if len(self.saves) != 1:
            return None
        try:
            path, values = model_state(checkpoint, self.saves[0])
        except FactUnavailable:
            return None
        steps = counted(values, "global_steps")
        return None if steps is None else (path, steps, min(counted(values, "skipped_steps") or 0, steps))

    def contradictions(self, checkpoint: Checkpoint) -> tuple[Contradiction, ...]:
        """What each rank's counters say against each other."""
        files = [pair for saved in self.saves for pair in readable(checkpoint, saved.models)]
        return tuple(found for path, values in files for found in contradictions_in(path, values))

    def processes(self, checkpoint: Checkpoint) -> int:
        """The least number of processes that can have trained, by what the model states say; 0 where they say nothing."""
        found = [_product(values) for saved in self.saves for _, values in readable(checkpoint, saved.models)]
        return max(found, default=0)

    def steps_scheduler(self, checkpoint: Checkpoint) -> bool | None:
        """Whether DeepSpeed steps the scheduler, and keeps its state; None where that can't be read."""
        try:
            return all(model_state(checkpoint, saved)[1].get("lr_scheduler") is not None for saved in self.saves)
        except FactUnavailable:
            return None

    def masters(self, checkpoint: Checkpoint) -> tuple[Master, ...]:
        """Those in the partitions."""
        return tuple(master for saved in self.saves for master in masters_of(checkpoint, saved))

    def ranks(
        self, checkpoint: Checkpoint, own: tuple[RankFiles, ...], sizes: tuple[Recorded, ...], count: int
    ) -> Ranks:
        """What the ranks wrote through DeepSpeed, and families of other files, which say themselves how many there must be.

        DeepSpeed counts the ranks that share the data, which need not be all processes.
        """
        parts = [ranks_of(checkpoint, saved) for saved in self.saves]
        return Ranks(
            tuple(r for part in parts for r in part.world_sizes),
            (*own, *(family for part in parts for family in part.families)),
            parts[0].steps if len(parts) == 1 else (),
        )


def _product(values: Mapping[object, object]) -> int:
    return (counted(values, "dp_world_size") or 0) * (counted(values, "mp_world_size") or 1)

"""`training_args.bin` and the like, read without running any of it: the arguments of the run that saved the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, is_count

FILE = "training_args.bin"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the run that saved the checkpoint was told; defaults where it is not known."""

    values: Mapping[object, object] = field(default_factory=dict)

    def is_on(self, name: str) -> bool:
        """Whether a switch was on."""
        return self.values.get(name) is True

    def count(self, name: str) -> int | None:
        """A positive whole number, or None."""
        value = self.values.get(name)
        return int(value) if is_count(value) and value > 0 else None

    @property
    def accumulation(self) -> int:
        """Batches per optimizer update."""
        return self.count("gradient_accumulation_steps") or 1

    @property
    def world_size(self) -> int | None:
        """Processes that trained, from the pickled `PartialState`."""
        state = self.values.get("distributed_state")
        values = state.state if isinstance(state, Opaque) else None
        number = values.get("num_processes") if isinstance(values, Mapping) else None
        return int(number) if is_count(number) and number > 0 else None


def arguments(checkpoint: Checkpoint) -> Arguments:
    """The arguments; none where the file is missing or damaged, for a resume does without it."""
    try:
        value = checkpoint.contents(FILE)
    except FactUnavailable:
        return Arguments()
    state = value.state if isinstance(value, Opaque) else value
    return Arguments(state if isinstance(state, Mapping) else {})

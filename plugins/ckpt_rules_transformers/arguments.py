"""`training_args.bin` and the like, read without running any of it: the arguments of the run that saved the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ckpt_rules import Checkpoint, FactUnavailable, Opaque, conventions, is_count

FILE = conventions.state_files.ARGUMENTS


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

    def choice(self, name: str) -> str | None:
        """What was chosen of several, such as `steps`; None where that is not known."""
        value = self.values.get(name)
        chosen = next(iter(value.args), None) if isinstance(value, Opaque) else value
        return chosen if isinstance(chosen, str) else None

    @property
    def accumulation(self) -> int:
        """Batches per optimizer update."""
        return self.count("gradient_accumulation_steps") or 1

    @property
    def world_size(self) -> int | None:
        """Processes that trained, from the pickled `PartialState`."""
        return self._of_processes("num_processes") or None

    def ranks_of_node(self, found: Iterable[int]) -> range | None:
        """The ranks of the node that saved; None where every node saved into one directory.

        The first is on record, and how many they are is not: as many as left a file, or more, where the world is not made of
        such nodes.
        """
        world, index = self.world_size, self._of_processes("process_index")
        local = self._of_processes("local_process_index")
        if not self.is_on("save_on_each_node") or world is None or index is None or local is None or local > index:
            return None
        first = index - local
        least = max((rank + 1 - first for rank in found if first <= rank < world), default=world)
        size = next((n for n in range(least, world) if world % n == 0 and first % n == 0), world - first)
        return range(first, first + size)

    def _of_processes(self, name: str) -> int | None:
        state = self.values.get("distributed_state")
        values = state.state if isinstance(state, Opaque) else None
        number = values.get(name) if isinstance(values, Mapping) else None
        return int(number) if is_count(number) else None


def arguments(checkpoint: Checkpoint) -> Arguments:
    """The arguments; none where the file is missing or damaged, for a resume does without it."""
    try:
        value = checkpoint.files.contents(FILE)
    except FactUnavailable:
        return Arguments()
    state = value.state if isinstance(value, Opaque) else value
    return Arguments(state if isinstance(state, Mapping) else {})

"""Lightning's layout of one file: recognising it, and where its facts are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    Entry,
    EntryKind,
    FactUnavailable,
    Field,
    Match,
    OptimizerState,
    Severity,
    TrainingState,
    Weights,
    state_dicts,
    weights_in,
)
from ckpt_rules_lightning.common import NAME, ONLY_WEIGHTS, VERSION, LightningState, keys_in, read_state
from ckpt_rules_lightning.loops import read_loops

_CERTAIN, _LIKELY, _BY_NAME = 93, 75, 40
_FIELDS = (
    Field("weights", ("state_dict",), Severity.ERROR, "Lightning stops with KeyError: 'state_dict'"),
    Field("optimizer", ("optimizer_states",), Severity.ERROR, ONLY_WEIGHTS.format("optimizer")),
)


class Lightning(LightningState):
    """One `.ckpt` file, by itself or alone in its directory."""

    name = "lightning"
    title = "PyTorch Lightning checkpoint"
    one_file: ClassVar[bool] = True

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By the keys of the only file that can be meant; a damaged one by its name."""
        file = checkpoint.fact(_only_file)
        if file is None:
            return None
        try:
            values = checkpoint.files.contents(file.path)
        except FactUnavailable:
            return Match(_BY_NAME, (file.path,)) if NAME.fullmatch(file.name) else None
        if not isinstance(values, Mapping) or not values:
            return Match(_BY_NAME, (file.path,)) if NAME.fullmatch(file.name) else None
        found = tuple(f"'{key}' in {file.path}" for key in keys_in(values))
        if VERSION in values:
            return Match(_CERTAIN, found[:4])
        return Match(_LIKELY, found[:4]) if len(found) > 2 and "loops" in values else None

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """`state_dict`; where WeightAveraging puts the average there, the weights that are trained, beside it."""
        return weights_in(checkpoint, _path(checkpoint), ("current_model_state", "state_dict"))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary in the file."""
        return read_state(checkpoint, _path(checkpoint), *_FIELDS)

    def held(self, checkpoint: Checkpoint) -> int:
        """How long the list of optimizers is."""
        listed = checkpoint.state.get("optimizer")
        return len(listed) if isinstance(listed, list) else 0

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """The only optimizer; FactUnavailable where there are several, or training uses none."""
        state = checkpoint.state
        if state.get("optimizer") == []:
            loops = read_loops(state.values)
            made = (loops.updates["completed"] or loops.manual["completed"]) if loops else 0
            if made:
                message = f"optimizer_states is empty, although {made:,} optimizer step{'s were' if made > 1 else ' was'} made: Lightning restores none"
                raise FactUnavailable(message, path=state.path, blocked=True)
            raise FactUnavailable("training uses no optimizer")
        return super().optimizer(checkpoint)

    def optimizers(self, checkpoint: Checkpoint) -> tuple[OptimizerState, ...]:
        """Each of them."""
        state = checkpoint.state
        values = state.get("optimizer")
        if not isinstance(values, list) or len(values) < 2:
            return (checkpoint.optimizer,)
        key = state.key_of("optimizer")
        return tuple(state_dicts.optimizer(v, state.path, f"{key}[{i}]") for i, v in enumerate(values))


def _only_file(checkpoint: Checkpoint) -> Entry | None:
    """The one torch file at the top; with several `.ckpt`, files or directories, the directory is a run."""
    tops = [e for e in checkpoint.listing if "/" not in e.path]
    files = [e for e in tops if e.kind is not EntryKind.DIRECTORY]
    if any(e.suffix == ".ckpt" for e in tops if e.kind is EntryKind.DIRECTORY):
        return None
    checkpoints = [e for e in files if e.suffix == ".ckpt"]
    others = [e for e in checkpoint.files.of_format("torch") if "/" not in e.path]
    found = checkpoints or others
    return found[0] if len(found) == 1 and not any(e.suffix == ".safetensors" for e in files) else None


def _path(checkpoint: Checkpoint) -> str:
    file = checkpoint.fact(_only_file)
    if file is None:
        raise FactUnavailable("there is no Lightning checkpoint file")
    return file.path

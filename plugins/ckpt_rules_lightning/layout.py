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
    OptimizerState,
    Severity,
    Sign,
    Signature,
    Tells,
    TrainingState,
    Weights,
    state_dicts,
    weights_in,
)
from ckpt_rules_lightning.common import NAME, ONLY_WEIGHTS, VERSION, LightningState, keys_in, read_state
from ckpt_rules_lightning.loops import read_loops

_FIELDS = (
    Field("weights", ("state_dict",), Severity.ERROR, "Lightning stops with KeyError: 'state_dict'"),
    Field("optimizer", ("optimizer_states",), Severity.ERROR, ONLY_WEIGHTS.format("optimizer")),
)


def _own_keys(checkpoint: Checkpoint) -> list[str]:
    """Lightning's keys in its file, where there are enough of them."""
    path = _path(checkpoint)
    values = checkpoint.files.contents(path)
    found = keys_in(values)
    own = VERSION in found or ("loops" in found and len(found) > 2)
    return [f"'{key}' in {path}" for key in found] if own else []


def _unreadable(checkpoint: Checkpoint) -> list[str]:
    """A file that is called like Lightning's, and holds nothing that can be read."""
    file = checkpoint.fact(_only_file)
    if file is None or not NAME.fullmatch(file.name):
        return []
    try:
        values = checkpoint.files.contents(file.path)
    except FactUnavailable:
        return [file.path]
    return [] if isinstance(values, Mapping) and values else [file.path]


class Lightning(LightningState):
    """One `.ckpt` file, by itself or alone in its directory."""

    name = "lightning"
    title = "PyTorch Lightning checkpoint"
    signatures = (
        Signature(must=(Sign(_own_keys, most=4),)),
        Signature(must=(Sign(_unreadable, Tells.NAME),)),
    )
    one_file: ClassVar[bool] = True

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

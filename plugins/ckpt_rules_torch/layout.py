"""The plain torch layout: recognising it, and where its facts are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TypeVar

from ckpt_rules import (
    Checkpoint,
    EntryKind,
    FactUnavailable,
    Layout,
    ModelConfig,
    OptimizerState,
    Progress,
    Recorded,
    Requirement,
    RngState,
    ScalerState,
    SchedulerState,
    Sign,
    Signature,
    Tells,
    TrainingState,
    Weights,
    find_weights,
    options,
    saves_among,
    state_dicts,
    weights_in,
)
from ckpt_rules_torch import names, shapes
from ckpt_rules_torch.counters import read_counters
from ckpt_rules_torch.progress import read_progress
from ckpt_rules_torch.state import read_state
from ckpt_rules_torch.state_file import find_state_file, has_several_states

T = TypeVar("T")


def _usual_state(checkpoint: Checkpoint) -> list[str]:
    """The state file under the name that the convention has for it."""
    file = None if checkpoint.files.is_one_file else checkpoint.fact(find_state_file)
    return [file.path] if file and file.path in names.STATE_FILES else []


def _state_found(checkpoint: Checkpoint) -> list[str]:
    """The state file, by its content; by itself, where it holds weights as well."""
    file = checkpoint.fact(find_state_file)
    if file is None or file.by_name or (checkpoint.files.is_one_file and not _is_whole(checkpoint, file.path)):
        return []
    return [file.path]


def _saves_below(checkpoint: Checkpoint) -> list[str]:
    """Directories of a run's saves, beside which a file that holds a state is one of them."""
    return saves_among([e.path for e in checkpoint.listing if e.kind is EntryKind.DIRECTORY])


def _state_named(checkpoint: Checkpoint) -> list[str]:
    """A file that can't be read, under a usual name."""
    file = None if checkpoint.files.is_one_file else checkpoint.fact(find_state_file)
    return [file.path] if file and file.by_name else []


def _remains(checkpoint: Checkpoint) -> list[str]:
    """Parts of a training state, at the top or of saves below, or several states: this is not a directory of weights alone."""
    if checkpoint.files.is_one_file or has_several_states(checkpoint):
        return [checkpoint.path]
    return [entry.path for entry in checkpoint.listing if names.PARTS.fullmatch(entry.name)]


def _weight_files(checkpoint: Checkpoint) -> list[str]:
    file = checkpoint.fact(find_state_file)
    return [
        e.path
        for e in checkpoint.listing
        if "/" not in e.path and names.WEIGHT_FILE.fullmatch(e.name) and not (file and e.path == file.path)
    ]


_WEIGHTS = Sign(_weight_files, Tells.WEIGHTS)
_CONFIG = Sign.file("config.json", tells=Tells.WEIGHTS)
_BESIDE = (_WEIGHTS, _CONFIG)


class PlainTorch(Layout):
    """`training_state.pth`, `config.json` and weights; or all of it in one file, whatever its name."""

    name = "plain-torch"
    title = "plain torch checkpoint"
    signatures = (
        Signature(must=(Sign(_usual_state, Tells.STATE),), may=_BESIDE),
        Signature(must=(Sign(_state_found, Tells.STATE),), may=_BESIDE, never=(Sign(_saves_below),)),
        Signature(must=(Sign(_state_named, Tells.SHARED),), may=_BESIDE),
        Signature(must=(_WEIGHTS,), may=(_CONFIG,), never=(Sign(_remains),)),
    )
    one_file = True
    reads_weights = True
    hand_written = True

    def nothing_to_resume(self, checkpoint: Checkpoint) -> str | None:
        """Weights with what `save_pretrained` writes beside them, and no training state, are an exported model."""
        if checkpoint.files.is_in_files or checkpoint.fact(find_state_file) is not None:
            return None
        mark = checkpoint.listing.first_file(names.EXPORTS)
        if mark is not None:
            return f"the directory holds a model that was exported ({mark.path}) and no training state"
        if _named_like_a_save(checkpoint):
            return None
        if _is_of_a_library(checkpoint):
            return "the directory holds a model as save_pretrained writes it (config.json) and no training state"
        return "the directory holds an adapter and no training state" if _is_lora(checkpoint) else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """The training state; and config.json, where weights lie in a file of their own beside a state of the usual name."""
        if self.nothing_to_resume(checkpoint):
            return ()
        file = checkpoint.fact(find_state_file)
        usual = names.STATE_FILES[:3]
        state = Requirement(
            (file.path,) if file else usual,
            "there is no training state, so neither progress nor optimizer can be restored; a model that was exported has none",
        )
        if file is None or file.path != names.STATE_FILES[0] or not _weight_files(checkpoint):
            return (state,)
        config = Requirement(("config.json",), "nothing says which model the weights belong to")
        return (state, config)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Weights in files of their own; else those inside the state file."""
        if _weight_files(checkpoint):
            return find_weights(checkpoint)
        file = checkpoint.fact(find_state_file)
        if file is None or file.path.endswith(".json"):
            return find_weights(checkpoint)
        state = checkpoint.state
        usual = [k for k in names.WEIGHTS if shapes.is_models(state.values.get(k))]
        known = {key for field in state.fields for key in field.keys}
        others = [k for k, v in state.values.items() if isinstance(k, str) and k not in known and shapes.is_weights(v)]
        keys = tuple(usual or others)
        return weights_in(checkpoint, file.path, keys) if keys else find_weights(checkpoint)

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary in the state file."""
        return read_state(checkpoint)

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """In the state, or in a file of its own."""
        return _part(checkpoint, "optimizer", state_dicts.optimizer)

    def scheduler(self, checkpoint: Checkpoint) -> SchedulerState:
        """In the state, or in a file of its own."""
        return _part(checkpoint, "scheduler", state_dicts.scheduler)

    def schedulers(self, checkpoint: Checkpoint) -> tuple[SchedulerState, ...]:
        """The first, and all others that the state holds under keys of their own."""
        first = checkpoint.scheduler
        try:
            state = checkpoint.state
        except FactUnavailable:
            return (first,)
        others = [k for k, v in state.values.items() if k != first.key and shapes.is_scheduling(v)]
        return (first, *(state_dicts.scheduler(state.values[k], state.path, str(k)) for k in others))

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """In the state, or in a file of its own."""
        return _part(checkpoint, "scaler", state_dicts.scaler)

    def rng(self, checkpoint: Checkpoint) -> RngState:
        """In the state, under one key or one for each generator, or in a file of its own."""
        try:
            state = checkpoint.state
        except FactUnavailable:
            return _part(checkpoint, "rng", state_dicts.rng)
        field = state.field("rng")
        keys = [k for k in (field.keys if field else ()) if k in state.values and k not in names.RNG]
        if keys and state.key_of("rng") == keys[0]:
            return state_dicts.rng({k: state.values[k] for k in keys}, state.path, keys[0])
        return _part(checkpoint, "rng", state_dicts.rng)

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """`config.json`, or the dictionary that a one-file checkpoint carries."""
        if checkpoint.listing.get("config.json"):
            return state_dicts.config_file(checkpoint.files.json("config.json"))
        state = checkpoint.state
        for name in names.MODEL_CONFIGS:
            values = options(state.values.get(name))
            if values:
                return ModelConfig(state.path, name, {k: v for k, v in values.items() if isinstance(k, str)})
        raise FactUnavailable("there is no model configuration: neither config.json nor an entry of the training state")

    def recorded(self, checkpoint: Checkpoint) -> tuple[Recorded, ...]:
        """The counters as they are written."""
        return read_counters(checkpoint)

    def progress(self, checkpoint: Checkpoint) -> Progress:
        """How far training got, in batches and updates."""
        return read_progress(checkpoint)


def _is_whole(checkpoint: Checkpoint, path: str) -> bool:
    if path.endswith(".json"):
        return False
    values = checkpoint.files.contents(path)
    return isinstance(values, dict) and any(shapes.is_weights(values.get(key)) for key in names.WEIGHTS)


def _named_like_a_save(checkpoint: Checkpoint) -> bool:
    return bool(saves_among([PurePath(checkpoint.path).name]))


def _is_of_a_library(checkpoint: Checkpoint) -> bool:
    """config.json as transformers and diffusers write it, which add their version."""
    try:
        values = state_dicts.config_file(checkpoint.files.json("config.json")).values
    except FactUnavailable:
        return False
    return any(isinstance(values.get(key), str) for key in ("transformers_version", "_diffusers_version"))


def _is_lora(checkpoint: Checkpoint) -> bool:
    """Low-rank matrices and their scales, and nothing else, as in the exports of trainers of image models."""
    try:
        names_of_all = [name for file in find_weights(checkpoint).files for name in file.tensors]
    except FactUnavailable:
        return False
    return bool(names_of_all) and all(names.LORA.search(name) for name in names_of_all)


def _part(checkpoint: Checkpoint, name: str, read: Callable[[object, str, str | None], T]) -> T:
    """A part of the state: under its key, or in a file of its own."""
    try:
        state = checkpoint.state
    except FactUnavailable as absent:
        if absent.blocked:
            raise
        state = None
    if state is not None and state.get(name) is not None:
        _refuse_several(state, name)
        return read(state.get(name), state.path, state.key_of(name))
    file = checkpoint.listing.first_file(names.PART_FILES[name])
    if file is not None:
        value = checkpoint.files.contents(file.path)
        key = shapes.first(value, getattr(names, name.upper())) if isinstance(value, dict) else None
        return read(value[key], file.path, key) if key and isinstance(value, dict) else read(value, file.path, "")
    key = state.misspelt(name) if state is not None else None
    if state is not None and key is not None:
        raise FactUnavailable(f"'{key}' in {state.path} is probably a misspelling", path=state.path, blocked=True)
    return read(None, state.path if state else ".", state.key_of(name) if state else None)


def _refuse_several(state: TrainingState, name: str) -> None:
    """Two models with an optimizer each: nothing says which of them the counters are about."""
    field = state.field(name)
    unusual = [
        k for k in (field.keys if field else ()) if state.values.get(k) and k not in getattr(names, name.upper())
    ]
    if len(unusual) > 1 and state.key_of(name) == unusual[0] and name != "rng":
        raise FactUnavailable(
            f"{state.path} keeps {len(unusual)} {name}s ({', '.join(unusual)}), and nothing says which one is meant"
        )

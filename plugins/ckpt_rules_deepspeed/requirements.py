"""Files that `load_checkpoint` can't do without."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ckpt_rules import TO_RESUME_OR_LOAD, Checkpoint, FactUnavailable, Requirement
from ckpt_rules_deepspeed.files import UNIVERSAL_STATE, Saved
from ckpt_rules_deepspeed.states import model_state, readable, zero_stage
from ckpt_rules_deepspeed.weights import parameters

_MODEL_NAMES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
_NO_MODEL = "load_checkpoint stops with an AssertionError without a message"
_NO_OPTIMIZER = "ZeRO keeps each rank's optimizer there, and the ranks stop with FileNotFoundError"
_NO_LAYER = "it has parameters of the pipeline, and load_checkpoint stops without them"
_NO_PART = "the universal save is not whole: other parameters have one"
_NO_WHOLE = "load_checkpoint stops with an AssertionError: a universal checkpoint keeps the optimizer's groups there"
_NUMBER = re.compile(r"[0-9]{1,4}")


def requirements_of(checkpoint: Checkpoint, saved: Saved) -> tuple[Requirement, ...]:
    """Model states always; partitions of the optimizer where ZeRO has any; each part that other parameters have."""
    found: list[Requirement] = []
    if not saved.models:
        names = tuple(f"{saved.folder}{name}" for name in _MODEL_NAMES)
        found.append(Requirement(names, _NO_MODEL, purposes=TO_RESUME_OR_LOAD))
    if not saved.optimizer_parts and not saved.universal and _is_partitioned(checkpoint, saved):
        name = f"{saved.folder}zero_pp_rank_0_mp_rank_00_optim_states.pt"
        found.append(Requirement((name, f"{saved.folder}*optim_states.pt"), _NO_OPTIMIZER))
    return (*found, *_layers(checkpoint, saved), *_universal(checkpoint, saved))


def _is_partitioned(checkpoint: Checkpoint, saved: Saved) -> bool:
    try:
        return zero_stage(model_state(checkpoint, saved)[1]) > 0
    except FactUnavailable:
        return False


def _layers(checkpoint: Checkpoint, saved: Saved) -> Iterator[Requirement]:
    """A file of each layer of a pipeline that has parameters, by the names that the ranks record: `3.weight`."""
    if not saved.layers:
        return
    there = {layer for layer, _ in saved.layers}
    names = (name for _, values in readable(checkpoint, saved.models) for name, _ in parameters(values))
    recorded = {int(layer) for layer, _, _ in (name.partition(".") for name in names) if _NUMBER.fullmatch(layer)}
    for layer in sorted(recorded - there):
        name = f"{saved.folder}layer_{layer:02d}-model_states.pt"
        yield Requirement((name,), _NO_LAYER, purposes=TO_RESUME_OR_LOAD)


def _universal(checkpoint: Checkpoint, saved: Saved) -> tuple[Requirement, ...]:
    """The optimizer as a whole; weights of every parameter on record; and the moments that other parameters have."""
    if not saved.universal:
        return ()
    found = [] if saved.universal_state else [Requirement((f"{saved.folder}{UNIVERSAL_STATE}",), _NO_WHOLE)]
    moments = {part for parts in saved.universal.values() for part in parts} - {"fp32"}
    recorded = dict.fromkeys(_recorded(checkpoint, saved))
    for name in (*recorded, *(n for n in saved.universal if n not in recorded)):
        parts = saved.universal.get(name, {})
        due = {"fp32"} | (moments if parts.keys() & moments else set())
        found += [
            Requirement((f"{saved.folder}zero/{name}/{part}.pt",), _NO_PART) for part in sorted(due - parts.keys())
        ]
    return tuple(found)


def _recorded(checkpoint: Checkpoint, saved: Saved) -> tuple[str, ...]:
    """Names of the parameters whose shapes the model states of the first rank record."""
    try:
        return tuple(name for name, _ in parameters(model_state(checkpoint, saved)[1]))
    except FactUnavailable:
        return ()

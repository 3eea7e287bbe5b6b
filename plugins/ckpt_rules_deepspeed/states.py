"""What the files of model states and of optimizer states hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Opaque,
    OptimizerState,
    ParamState,
    TensorInfo,
    dictionary,
    is_count,
    plain,
    state_dicts,
)
from ckpt_rules_deepspeed.files import Saved

OPTIMIZER = "optimizer_state_dict"
_PARTITIONED = (1, 2, 3)


def model_state(checkpoint: Checkpoint, saved: Saved) -> tuple[str, Mapping[object, object]]:
    """The model states of the first rank: counters, scheduler and the script's own state."""
    if not saved.models:
        raise FactUnavailable("there is no mp_rank_00_model_states.pt")
    path = saved.models[0]
    return path, dictionary(checkpoint, path)


def readable(
    checkpoint: Checkpoint, paths: Iterator[str] | tuple[str, ...]
) -> Iterator[tuple[str, Mapping[object, object]]]:
    """Those files that can be read; rules about damaged files report the others."""
    for path in paths:
        try:
            yield path, dictionary(checkpoint, path)
        except FactUnavailable:
            continue


def part(values: object, *keys: str) -> Mapping[object, object]:
    """The dictionary under some keys, each inside the last; empty where there is none."""
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def zero_stage(values: Mapping[object, object]) -> int:
    """The ZeRO stage that the run's configuration asked for; 0 where it does not say."""
    stage = part(values, "ds_config", "zero_optimization").get("stage")
    return stage if isinstance(stage, int) and stage in _PARTITIONED else 0


def optimizers(checkpoint: Checkpoint, saved: Saved) -> Iterator[OptimizerState]:
    """The optimizer of each rank that kept one."""
    for key in sorted(saved.optimizer_parts):
        path = saved.optimizer_parts[key]
        yield _partition(path, part(dictionary(checkpoint, path), OPTIMIZER))
    for rank in sorted(saved.expert_optimizers):
        yield _unpartitioned(checkpoint, saved.expert_optimizers[rank])
    if not saved.optimizer_parts and not saved.expert_optimizers:
        for path in saved.models:
            yield _unpartitioned(checkpoint, path)


def _unpartitioned(checkpoint: Checkpoint, path: str) -> OptimizerState:
    """The optimizer without ZeRO: torch's own, or inside of the one that keeps float32 copies of half-precision weights."""
    values = dictionary(checkpoint, path).get("optimizer")
    inside = values.get(OPTIMIZER) if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or not isinstance(inside, Mapping):
        return state_dicts.optimizer(values, path, "optimizer")
    optimizer = state_dicts.optimizer(inside, path, f"optimizer.{OPTIMIZER}")
    return replace(optimizer, states=_with_weights(optimizer, tuple(_copies(values))))


def _copies(values: Mapping[object, object]) -> Iterator[TensorInfo]:
    """One flat tensor for each group, or a list of tensors for each."""
    groups = values.get("fp32_groups_flat", values.get("fp32_groups"))
    for group in groups if isinstance(groups, list | tuple) else ():
        yield from (t for t in (group if isinstance(group, list) else [group]) if isinstance(t, TensorInfo))


def _partition(path: str, values: Mapping[object, object]) -> OptimizerState:
    """Stages 1 and 2 call it `base_optimizer_state`, stage 3 and bf16's optimizer otherwise."""
    key = next((k for k in ("base_optimizer_state", OPTIMIZER) if k in values), None)
    inside = values.get(key) if key else None
    if isinstance(inside, list | tuple):  # elastic checkpoints keep pieces without groups
        raise FactUnavailable(f"{path} keeps the pieces of an elastic checkpoint")
    name = f"{OPTIMIZER}.{key}" if key else OPTIMIZER
    optimizer = state_dicts.optimizer(inside, path, name)
    return replace(optimizer, states=_with_weights(optimizer, flat_groups(values) or ()))


def _with_weights(optimizer: OptimizerState, groups: tuple[TensorInfo, ...]) -> dict[object, ParamState]:
    """Each flat parameter's state, with its float32 weights, which ZeRO keeps beside."""
    pieces = dict(enumerate(groups))
    return {
        key: replace(state, tensors={**state.tensors, "fp32": pieces[key]}) if key in pieces else state
        for key, state in optimizer.states.items()
    }


def loss_scaler(checkpoint: Checkpoint, saved: Saved) -> tuple[str, str, object, object]:
    """Path, key, scale and whether it is dynamic, of the loss scaler beside the first optimizer."""
    path = next((saved.optimizer_parts[key] for key in sorted(saved.optimizer_parts)), None)
    if path is not None:
        values = part(dictionary(checkpoint, path), OPTIMIZER)
        scaler = values.get("loss_scaler")
        state = scaler.state if isinstance(scaler, Opaque) and isinstance(scaler.state, Mapping) else {}
        scale = plain(state.get("cur_scale", values.get("cur_scale")))
        return path, f"{OPTIMIZER}.loss_scaler", scale, values.get("dynamic_loss_scale")
    for path in saved.models[:1]:
        values = part(dictionary(checkpoint, path), "optimizer")
        if "cur_scale" in values:
            return path, "optimizer", plain(values["cur_scale"]), values.get("dynamic_loss_scale")
    raise FactUnavailable("there is no loss scaler")


def flat_groups(state: Mapping[object, object]) -> tuple[TensorInfo, ...] | None:
    """The pieces of float32 weights that a rank keeps, one for each group; None where they are not laid out so."""
    groups = state.get("single_partition_of_fp32_groups", state.get("fp32_flat_groups"))
    if not isinstance(groups, list | tuple):
        return None
    flat = tuple(g for g in groups if isinstance(g, TensorInfo))
    return flat if len(flat) == len(groups) else None


def partition_count(state: Mapping[object, object]) -> object:
    """How many ranks a rank's optimizer states are divided among; groups of experts have fewer."""
    count = state.get("partition_count")
    return max(count) if isinstance(count, list | tuple) and count and all(map(is_count, count)) else count


def copies_of(state: Mapping[object, object], number: int, ranks: int) -> int:
    """How many sets of ranks hold a group: one, or as many as divide the experts among themselves."""
    counts = state.get("partition_count")
    count = counts[number] if isinstance(counts, list | tuple) and number < len(counts) else ranks
    return ranks // int(count) if is_count(count) and count else 1


def counted(values: Mapping[object, object], key: str) -> int | None:
    """A counter, where it is one."""
    value = plain(values.get(key))
    return int(value) if is_count(value) else None

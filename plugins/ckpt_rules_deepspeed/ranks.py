"""What each rank of a save wrote, and what it records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    OptimizerState,
    RankFiles,
    Ranks,
    Recorded,
    Severity,
    is_count,
    plain,
)
from ckpt_rules_deepspeed.files import Saved, template_of
from ckpt_rules_deepspeed.states import OPTIMIZER, counted, optimizers, part, partition_count, readable

Models = tuple[tuple[str, Mapping[object, object]], ...]

_EXPERT_GROUP = re.compile(r"(?:.*_)?ep_size_(\d{1,6})(?:_.*)?")
_STOPS = "that rank stops with {}, while the others wait for it"


def ranks_of(checkpoint: Checkpoint, saved: Saved) -> Ranks:
    """Families of files, numbers of data-parallel ranks, and the updates that each file records."""
    models = tuple(readable(checkpoint, saved.models))
    partitions = tuple(readable(checkpoint, tuple(saved.optimizer_parts[k] for k in sorted(saved.optimizer_parts))))
    sizes = [Recorded("world_size", v.get("dp_world_size"), p, "dp_world_size") for p, v in models]
    counts = [
        Recorded("world_size", partition_count(part(v, OPTIMIZER)), p, f"{OPTIMIZER}.partition_count")
        for p, v in partitions
        if not _divides_again(v)
    ]
    return Ranks(
        tuple(r for r in (*sizes, *counts) if is_count(r.value)),
        tuple(_families(saved, models)),
        _comparable(tuple(_of_models(models)), tuple(_of_optimizers(checkpoint, saved))),
    )


def _divides_again(values: Mapping[object, object]) -> bool:
    """Whether MiCS divides the model among a part of the ranks only."""
    return bool(counted(part(values, "ds_config", "zero_optimization"), "mics_shard_size"))


def _families(saved: Saved, models: Models) -> Iterator[RankFiles]:
    world = next((n for _, v in models if (n := counted(v, "mp_world_size"))), None)
    if saved.model:
        why = "load_checkpoint stops with an AssertionError"
        template = saved.folder + "mp_rank_{:02d}_model_states.pt"
        yield RankFiles("the model states", template, saved.model, why, expected=world)
    yield from _parts("the model's shapes and the counters", saved.model_parts, _STOPS.format("an AssertionError"))
    shares = frozenset((*saved.model, *(mp for _, mp in saved.model_parts)))
    yield from _parts(
        "the optimizer's partition", saved.optimizer_parts, _STOPS.format("FileNotFoundError"), shares=shares
    )
    yield from _parts(
        "the experts' optimizer", saved.expert_optimizers, _STOPS.format("FileNotFoundError"), _expert_ranks(models)
    )
    yield from _experts(saved, models)
    if saved.layers:
        # A layer without a state dictionary, such as a function, writes none.
        why = "if that layer has parameters, load_checkpoint stops"
        template = saved.folder + "layer_{:02d}-model_states.pt"
        found = {layer: path for (layer, _), path in saved.layers.items()}
        yield RankFiles("the layer", template, found, why, Severity.INFO, expected=max(found) + 1)


def _expert_ranks(models: Models) -> int | None:
    """Ranks that divide the experts: DeepSpeed names the groups of their parameters after it."""
    for _, values in models:
        groups = part(values, "optimizer").get("param_groups")
        names = [str(part(group).get("name")) for group in groups] if isinstance(groups, list) else []
        sizes = [int(match[1]) for name in names if (match := _EXPERT_GROUP.fullmatch(name))]
        return max(sizes, default=None)
    return None


def _parts(
    what: str,
    parts: Mapping[tuple[int, int], str],
    why: str,
    expected: int | None = None,
    shares: frozenset[int] = frozenset(),
) -> Iterator[RankFiles]:
    """One family for each model-parallel rank that has some, or ought to (`shares`) because others have."""
    for model_rank in sorted({mp for _, mp in parts} | (shares if parts else frozenset())):
        paths = {rank: path for (rank, mp), path in parts.items() if mp == model_rank}
        like = template_of(next(iter(paths.values()), next(iter(parts.values()))))
        template = re.sub(r"(?<=mp_rank_)\d+", f"{model_rank:02d}", like)
        yield RankFiles(what, template, paths, why, expected=expected)


def _experts(saved: Saved, models: Models) -> Iterator[RankFiles]:
    counts = next((v.get("num_experts") for _, v in models), None)
    numbers = counts if isinstance(counts, list | tuple) else []
    for layer, model_rank in sorted({(layer, mp) for layer, _, mp in saved.experts}):
        paths = {e: path for (at, e, mp), path in saved.experts.items() if (at, mp) == (layer, model_rank)}
        name = f"layer_{layer}_expert_{{}}" if layer >= 0 else "expert_{}"
        template = f"{saved.folder}{name}_mp_rank_{model_rank:02d}_model_states.pt"
        why = "the rank that holds this expert stops with FileNotFoundError, while the others wait for it"
        count = numbers[layer] if 0 <= layer < len(numbers) and is_count(numbers[layer]) else max(paths) + 1
        yield RankFiles("an expert's weights", template, paths, why, expected=int(count))


def _of_models(models: Models) -> Iterator[Recorded]:
    for path, values in models:
        steps = counted(values, "global_steps")
        if steps is not None:
            yield Recorded("global_step", steps - (counted(values, "skipped_steps") or 0), path, "global_steps")


def _of_optimizers(checkpoint: Checkpoint, saved: Saved) -> Iterator[Recorded]:
    for optimizer in _each(optimizers(checkpoint, saved)):
        if optimizer.updates is not None:
            yield Recorded("step", optimizer.updates, optimizer.path, optimizer.key)


def _each(found: Iterator[OptimizerState]) -> Iterator[OptimizerState]:
    """Those up to the first that is not available."""
    while True:
        try:
            yield next(found)
        except (StopIteration, FactUnavailable):
            return


def _comparable(models: tuple[Recorded, ...], updates: tuple[Recorded, ...]) -> tuple[Recorded, ...]:
    """All records; but where an optimizer was restarted on all ranks, its count has nothing to do with the model's."""
    made = {plain(r.value) for r in updates}
    if len(made) == 1 and not made & {plain(r.value) for r in models}:
        return models
    return (*models, *updates)

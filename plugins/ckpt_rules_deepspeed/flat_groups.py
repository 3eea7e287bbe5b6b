"""optimizer/flat-group-numel: elements of the flat partitions against the shapes of the parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, TensorInfo, dictionary
from ckpt_rules_deepspeed.files import Saved, find_saved, saves_inside
from ckpt_rules_deepspeed.states import OPTIMIZER, copies_of, flat_groups, part, partition_count
from ckpt_rules_deepspeed.weights import parameter_groups, parameters

_ALIGNMENT = 2


@dataclass(frozen=True, slots=True)
class _Flat:
    """Pieces of one model-parallel rank: elements that are there, and the least and the most that are due."""

    path: str
    key: str
    model: str
    have: int
    least: int
    most: int


class FlatGroupNumel(Rule):
    """The flat partitions of the optimizer do not have as many elements as the parameters.

    ## What it checks
    DeepSpeed's ZeRO flattens the parameters of a group into one tensor and gives each rank an equal piece. The pieces
    of all ranks together must have as many elements as the shapes recorded beside the model (`param_shapes`) add up to,
    with no more padding than alignment to the ranks requires. A group of experts is divided among a subset of the
    ranks, and exists once for each subset.

    ## Why it matters
    The partitions are split by the shapes alone. One parameter more or less shifts all that follow: the model that is
    resumed, or converted by zero_to_fp32.py, has every weight in the wrong place.

    ## How to repair
    Take all files from one save. If the model was changed after the save, load the weights alone and start with a
    fresh optimizer.
    """

    id = "optimizer/flat-group-numel"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each group of each model-parallel rank; under stage 3, for all groups together."""
        here = checkpoint.fact(find_saved)
        saves = (here,) if here.signs else checkpoint.fact(saves_inside)
        divided = [saved for saved in saves if saved.optimizer_parts]
        if not divided:
            raise FactUnavailable("the optimizer is not laid out in flat partitions")
        for flat in (flat for saved in divided for flat in _flats_of(checkpoint, saved)):
            if not flat.least <= flat.have <= flat.most:
                yield _problem(flat)


def _flats_of(checkpoint: Checkpoint, saved: Saved) -> Iterator[_Flat]:
    by_rank: dict[int, list[str]] = defaultdict(list)
    for (_, rank), path in sorted(saved.optimizer_parts.items()):
        by_rank[rank].append(path)
    for rank, paths in sorted(by_rank.items()):
        model = saved.model.get(rank) or saved.model_parts.get((0, rank))
        if model:
            yield from _flats(checkpoint, paths, model)


def _flats(checkpoint: Checkpoint, paths: list[str], model: str) -> Iterator[_Flat]:
    states = [part(dictionary(checkpoint, path), OPTIMIZER) for path in paths]
    values = dictionary(checkpoint, model)
    pieces = [flat_groups(state) for state in states]
    if any(partition_count(state) != len(paths) for state in states) or values.get("ds_autoep_layers"):
        return  # ranks/missing-file and ranks/world-size say so; AutoEP lays experts out in its own way
    shapes = [sum(tensor.numel for _, tensor in group) for group in parameter_groups(values)]
    whole = [p for p in pieces if p is not None]
    if not any(shapes) or len(whole) < len(pieces):
        return
    if "fp32_flat_groups" in states[0]:
        least = sum(_rounded(tensor.numel, len(paths)) for _, tensor in parameters(values))
        have = sum(piece.numel for rank_pieces in whole for piece in rank_pieces)
        yield _Flat(paths[0], f"{OPTIMIZER}.fp32_flat_groups", model, have, least, least)
        return
    if any(len(p) != len(shapes) for p in whole):
        if not values.get("num_experts"):  # whose groups are there several times
            yield _in_all(paths, whole, states, shapes, model)
        return
    for number, numel in enumerate(shapes):
        least = numel * copies_of(states[0], number, len(paths))
        slack = max(_ALIGNMENT * len(paths), _padding(states, number))
        have = sum(rank_pieces[number].numel for rank_pieces in whole)
        key = f"{OPTIMIZER}.single_partition_of_fp32_groups[{number}]"
        yield _Flat(paths[0], key, model, have, least, least + slack)


def _in_all(
    paths: list[str],
    pieces: list[tuple[TensorInfo, ...]],
    states: list[Mapping[object, object]],
    shapes: list[int],
    model: str,
) -> _Flat:
    """All groups together, where the shapes are told in other groups than the optimizer has."""
    groups = max(map(len, pieces))
    slack = max(_ALIGNMENT * len(paths) * groups, sum(_padding(states, number) for number in range(groups)))
    have, least = sum(piece.numel for own in pieces for piece in own), sum(shapes)
    return _Flat(paths[0], f"{OPTIMIZER}.single_partition_of_fp32_groups", model, have, least, least + slack)


def _rounded(numel: int, ranks: int) -> int:
    """Stage 3 divides each parameter by itself, and rounds up."""
    return -(-numel // ranks) * ranks


def _padding(states: list[Mapping[object, object]], number: int) -> int:
    found = [state.get("group_paddings") for state in states]
    paddings = [group[number] for group in found if isinstance(group, list | tuple) and number < len(group)]
    return sum(n for n in paddings if isinstance(n, int))


def _problem(flat: _Flat) -> Problem:
    padded = f" to {flat.most:,} with padding" if flat.most > flat.least else ""
    return Problem(
        message=f"the flat partitions hold {flat.have:,} elements, but the parameter shapes in {flat.model} add up to "
        f"{flat.least:,}{padded}",
        place=Place(path=flat.path, key=flat.key),
        help="take all files from one save; if the model was changed, load the weights alone and start with a fresh optimizer",
        data={"have": flat.have, "least": flat.least, "most": flat.most},
    )

"""optimizer/flat-group-numel: elements of the flat partitions against the shapes of the parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule
from ckpt_rules_deepspeed.files import Saved, find_saved, saves_inside
from ckpt_rules_deepspeed.states import OPTIMIZER, dictionary, flat_groups, part, partition_count
from ckpt_rules_deepspeed.weights import parameters

_ALIGNMENT = 2


@dataclass(frozen=True, slots=True)
class _Flat:
    """Partitions of one model-parallel rank: elements that are there, and the least and the most that are due."""

    path: str
    key: str
    model: str
    have: int
    least: int
    most: int


class FlatGroupNumel(Rule):
    """The flat partitions of the optimizer hold another number of elements than the parameters have.

    ## What it checks
    DeepSpeed's ZeRO lays the parameters of a group into one flat tensor and gives each rank an equal piece. The pieces of all
    ranks together must have as many elements as the shapes recorded beside the model (`param_shapes`) add up to,
    with no more padding than alignment to the ranks asks for. Experts are left out: each rank has others.

    ## Why it matters
    The partitions are cut apart by the shapes alone. One parameter more or less shifts all that follow: the model that
    is resumed, or converted by zero_to_fp32.py, has every weight in the wrong place.

    ## How to repair
    Take all files from one save. If the model was changed after the save, load the weights alone and start with a
    fresh optimizer.
    """

    id = "optimizer/flat-group-numel"
    tags = frozenset({"resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each model-parallel rank."""
        here = checkpoint.fact(find_saved)
        saves = (here,) if here.signs else checkpoint.fact(saves_inside)
        flat = [saved for saved in saves if saved.optimizer_parts and not saved.experts]
        if not flat:
            raise FactUnavailable("the optimizer is not laid out in flat partitions")
        for saved in flat:
            yield from _problems(checkpoint, saved)


def _problems(checkpoint: Checkpoint, saved: Saved) -> Iterator[Problem]:
    for rank in sorted({mp for _, mp in saved.optimizer_parts}):
        flat = _flat(checkpoint, saved, rank)
        if flat is not None and not flat.least <= flat.have <= flat.most:
            yield _problem(flat)


def _flat(checkpoint: Checkpoint, saved: Saved, rank: int) -> _Flat | None:
    paths = [path for (_, mp), path in sorted(saved.optimizer_parts.items()) if mp == rank]
    model = saved.model.get(rank) or saved.model_parts.get((0, rank))
    states = [dictionary(checkpoint, path) for path in paths]
    if model is None or any(partition_count(state) != len(paths) for state in states):
        return None  # ranks/missing-file and ranks/world-size say so
    values = dictionary(checkpoint, model)
    shapes = [] if _has_experts(values) else [tensor.numel for _, tensor in parameters(values)]
    pieces = [flat_groups(part(state, OPTIMIZER)) for state in states]
    if not shapes or any(p is None for p in pieces):
        return None
    stage3 = "fp32_flat_groups" in part(states[0], OPTIMIZER)
    least = sum(_rounded(n, len(paths)) for n in shapes) if stage3 else sum(shapes)
    groups = max(len(p or ()) for p in pieces)
    slack = _ALIGNMENT * len(paths) * max(groups, 1) if not stage3 else 0
    have = sum(piece.numel for rank_pieces in pieces for piece in rank_pieces or ())
    key = f"{OPTIMIZER}.{'fp32_flat_groups' if stage3 else 'single_partition_of_fp32_groups'}"
    return _Flat(paths[0], key, model, have, least, least + max(slack, _padding(states)))


def _has_experts(values: Mapping[object, object]) -> bool:
    return bool(values.get("num_experts") or values.get("ds_autoep_layers"))


def _rounded(numel: int, ranks: int) -> int:
    """Stage 3 divides each parameter by itself, and rounds up."""
    return -(-numel // ranks) * ranks


def _padding(states: list[Mapping[object, object]]) -> int:
    found = [part(state, OPTIMIZER).get("group_paddings") for state in states]
    return sum(n for group in found if isinstance(group, list | tuple) for n in group if isinstance(n, int))


def _problem(flat: _Flat) -> Problem:
    padded = f" to {flat.most:,} with padding" if flat.most > flat.least else ""
    return Problem(
        message=f"the flat partitions hold {flat.have:,} elements, and the shapes of the parameters in {flat.model} make "
        f"{flat.least:,}{padded}",
        place=Place(path=flat.path, key=flat.key),
        help="take all files from one save; if the model was changed, load the weights alone and start with a fresh optimizer",
        data={"have": flat.have, "least": flat.least, "most": flat.most},
    )

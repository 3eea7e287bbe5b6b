"""The form of older Megatron-LM: `mp_rank_TT[_PPP[_EEE]]/model_optim_rng.pt`, a file for each model-parallel rank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import ClassVar

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Field,
    Match,
    ModelConfig,
    Ranks,
    Recorded,
    Requirement,
    TrainingState,
    Weights,
    weights_in,
)
from ckpt_rules_megatron import common

_FILE = "model_optim_rng.pt"
_RANK = re.compile(r"mp_rank_(\d{2,3})(?:_(\d{3}))?(?:_(\d{3}))?/" + re.escape(_FILE))
_DIRECTORY = re.compile(r"mp_rank_\d{2,3}(?:_\d{3}){0,2}")
_CERTAIN, _LIKELY = 93, 75
_FIELDS = (
    Field("global_step", ("iteration",), "error", "Megatron then counts from zero, and trains all data again"),
    Field("optimizer", ("optimizer",)),
    Field("scheduler", ("opt_param_scheduler", "lr_scheduler")),
    Field("rng", ("rng_state",)),
    Field("weights", ("model", "model0")),
)


class MegatronRanks(common.Megatron):
    """A directory for each tensor- and pipeline-parallel rank."""

    name = "megatron-ranks"
    title = "Megatron-LM checkpoint of a file for each rank"
    own_loader: ClassVar[tuple[str, ...]] = ("mp_rank_*",)

    def recognise(self, checkpoint: Checkpoint) -> Match | None:
        """By the names of directories, and of the file in them."""
        files = list(rank_files(checkpoint).values())
        if files:
            return Match(_CERTAIN, tuple(files[:3]))
        named = [e.path for e in checkpoint.listing if _DIRECTORY.fullmatch(e.path)]
        tracked = common.NAME.fullmatch(checkpoint.path.rstrip("/").rpartition("/")[2]) is not None
        return Match(_LIKELY, tuple(named[:3])) if named and tracked else None

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """A file for every combination of tensor, pipeline and expert rank below the highest of each."""
        found = rank_files(checkpoint)
        sides = ([n for rank in found if (n := rank[i]) is not None] for i in range(3))
        grid = product(*(range(max(numbers) + 1) if numbers else [None] for numbers in sides))
        why = "each rank loads its own file, and the others wait for it"
        both = frozenset({"resume", "load"})
        missing = [_path(rank) for rank in grid if rank not in found]
        return tuple(Requirement((path,), why, purposes=both) for path in missing)

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of the first rank: its share of the model."""
        return weights_in(checkpoint, _first(checkpoint), ("model", "model0"))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary of the first rank."""
        path = _first(checkpoint)
        values = checkpoint.contents(path)
        if not isinstance(values, Mapping):
            raise FactUnavailable(f"{path} holds no dictionary", path=path, blocked=True)
        return TrainingState(path, values, _FIELDS)

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """The arguments, which say the sizes of the whole model and not of a rank's share."""
        raise FactUnavailable("the arguments say the sizes of the whole model, a file holds a rank's share")

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """The iteration that each file records."""
        steps = []
        for path in rank_files(checkpoint).values():
            values = contents(checkpoint, path)
            if values.get("iteration") is not None:
                steps.append(Recorded("step", values["iteration"], path, "iteration"))
        return Ranks(steps=tuple(steps))


Rank = tuple[int | None, int | None, int | None]


def rank_files(checkpoint: Checkpoint) -> dict[Rank, str]:
    """Path by tensor, pipeline and expert rank; None where the names do not tell one."""
    found: dict[Rank, str] = {}
    for entry in checkpoint.listing:
        if match := _RANK.fullmatch(entry.path):
            tensor, pipeline, expert = (None if n is None else int(n) for n in match.groups())
            found[tensor, pipeline, expert] = entry.path
    return found


def contents(checkpoint: Checkpoint, path: str) -> Mapping[object, object]:
    """The dictionary in a rank's file; empty where it can't be read, which other rules report."""
    try:
        values = checkpoint.contents(path)
    except FactUnavailable:
        return {}
    return values if isinstance(values, Mapping) else {}


def _first(checkpoint: Checkpoint) -> str:
    paths = list(rank_files(checkpoint).values())
    if not paths:
        raise FactUnavailable(f"no rank has left its {_FILE}")
    return paths[0]


def _path(rank: tuple[int | None, ...]) -> str:
    tensor, *others = rank
    return f"mp_rank_{tensor or 0:02d}{''.join(f'_{n:03d}' for n in others if n is not None)}/{_FILE}"

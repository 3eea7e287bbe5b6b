"""The form of older Megatron-LM: `mp_rank_TT[_PPP[_EEE]]/model_optim_rng.pt`, a file for each model-parallel rank."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import ClassVar

from ckpt_rules import (
    TO_RESUME_OR_LOAD,
    Checkpoint,
    FactUnavailable,
    Field,
    ModelConfig,
    OptimizerState,
    Ranks,
    Recorded,
    Requirement,
    ScalerState,
    Severity,
    Sign,
    Signature,
    Tells,
    TensorInfo,
    TrainingState,
    Weights,
    dictionary,
    dictionary_or_empty,
    plain,
    state_dicts,
    weights_in,
)
from ckpt_rules_megatron import common

_FILE, _OPTIMIZER = "model_optim_rng.pt", "distrib_optim.pt"
_NO_OPTIMIZER = (
    "it holds the moments and the float32 weights of the distributed optimizer, and Megatron stops without it"
)
_RANK = re.compile(r"mp_rank_(\d{2,3})(?:_(\d{3}))?(?:_(\d{3}))?/" + re.escape(_FILE))
_DIRECTORY = re.compile(r"mp_rank_\d{2,3}(?:_\d{3}){0,2}")
_FIELDS = (
    Field("global_step", ("iteration",), Severity.ERROR, "Megatron then counts from zero, and trains all data again"),
    Field("optimizer", ("optimizer",)),
    Field("scheduler", ("opt_param_scheduler", "lr_scheduler")),
    Field("rng", ("rng_state",)),
    Field("weights", ("model", "model0")),
)
_OPTIMIZER_FIELD = Field(
    "optimizer", ("optimizer",), Severity.ERROR, "Megatron stops with 'Unable to load optimizer from checkpoint'"
)


class MegatronRanks(common.Megatron):
    """A directory for each tensor- and pipeline-parallel rank."""

    name = "megatron-ranks"
    title = "Megatron-LM checkpoint of a file for each rank"
    signatures = (
        Signature(must=(Sign(lambda checkpoint: rank_files(checkpoint).values(), most=3),)),
        Signature(must=(Sign.file(_DIRECTORY, tells=Tells.SHARED, most=3), Sign.named(common.NAME))),
    )
    own_loader: ClassVar[tuple[str, ...]] = ("mp_rank_*",)

    def requirements(self, checkpoint: Checkpoint) -> tuple[Requirement, ...]:
        """A file for every combination of tensor, pipeline and expert rank below the highest of each."""
        found = rank_files(checkpoint)
        sides = ([n for rank in found if (n := rank[i]) is not None] for i in range(3))
        grid = product(*(range(max(numbers) + 1) if numbers else [None] for numbers in sides))
        why = "each rank loads its own file, and the others wait for it"
        missing = [_path(rank) for rank in grid if rank not in found]
        return (
            *(Requirement((path,), why, purposes=TO_RESUME_OR_LOAD) for path in missing),
            *_optimizers(checkpoint, found),
        )

    def weights(self, checkpoint: Checkpoint) -> Weights:
        """Those of the first rank: its share of the model."""
        return weights_in(checkpoint, _first(checkpoint), ("model", "model0"))

    def state(self, checkpoint: Checkpoint) -> TrainingState:
        """The dictionary of the first rank."""
        path = _first(checkpoint)
        values = dictionary(checkpoint, path)
        begun = tuple(_OPTIMIZER_FIELD if f.name == "optimizer" else f for f in _FIELDS)
        return TrainingState(path, values, begun if common.is_begun(values) else _FIELDS)

    def optimizer(self, checkpoint: Checkpoint) -> OptimizerState:
        """That of the first rank, bare or beside its float32 copies; a distributed one is in flat pieces elsewhere."""
        path = _first(checkpoint)
        value = dictionary_or_empty(checkpoint, path).get("optimizer")
        inside = value.get("optimizer") if isinstance(value, Mapping) else None
        if isinstance(value, list) and len(value) > 1:
            raise FactUnavailable("several optimizers are chained, each with some of the parameters")
        if not isinstance(value, Mapping) or not isinstance(inside, Mapping):
            return super().optimizer(checkpoint)
        if "state" not in inside:
            raise FactUnavailable(f"the distributed optimizer keeps its state in flat pieces, in {_OPTIMIZER}")
        return _with_copies(state_dicts.optimizer(inside, path, "optimizer.optimizer"), value)

    def scaler(self, checkpoint: Checkpoint) -> ScalerState:
        """Kept by the optimizer, where it trains in fp16."""
        path = _first(checkpoint)
        value = dictionary_or_empty(checkpoint, path).get("optimizer")
        scaler = value.get("grad_scaler") if isinstance(value, Mapping) else None
        if not isinstance(scaler, Mapping) or "scale" not in scaler:
            raise FactUnavailable("the optimizer keeps no gradient scaler")
        return ScalerState(path, "optimizer.grad_scaler", True, plain(scaler["scale"]), scaler.get("growth_tracker"))

    def config(self, checkpoint: Checkpoint) -> ModelConfig:
        """The arguments, which say the sizes of the whole model and not of a rank's share."""
        raise FactUnavailable("the arguments say the sizes of the whole model, a file holds a rank's share")

    def ranks(self, checkpoint: Checkpoint) -> Ranks:
        """The iteration that each file records."""
        steps = []
        for path in rank_files(checkpoint).values():
            values = dictionary_or_empty(checkpoint, path)
            if values.get("iteration") is not None:
                steps.append(Recorded("step", values["iteration"], path, "iteration"))
        return Ranks(steps=tuple(steps))


Rank = tuple[int | None, int | None, int | None]


def _with_copies(found: OptimizerState, value: Mapping[object, object]) -> OptimizerState:
    """The optimizer with its float32 copies of the weights, where there is one for each parameter."""
    groups = value.get("fp32_from_fp16_params")
    lists = [group for group in groups if isinstance(group, list)] if isinstance(groups, list) else []
    copies = [t for group in lists for t in group if isinstance(t, TensorInfo)]
    if len(copies) != len(found.states):
        return found
    both = zip(found.states.items(), copies, strict=True)
    return replace(found, states={k: replace(s, tensors={**s.tensors, "fp32": t}) for (k, s), t in both})


def _optimizers(checkpoint: Checkpoint, found: Mapping[Rank, str]) -> Iterator[Requirement]:
    """The distributed optimizer's file beside each rank's, where others have one or the arguments ask for it.

    Left out are ranks of experts, of which some have no optimizer.
    """
    paths = {rank: path.replace(_FILE, _OPTIMIZER) for rank, path in found.items()}
    values = dictionary_or_empty(checkpoint, next(iter(found.values()))) if found else {}
    args = common.arguments(values)
    asked = args.get("use_distributed_optimizer") is True and args.get("ckpt_format", "torch") == "torch"
    if (asked and "optimizer" in values) or any(checkpoint.listing.has_file(path) for path in paths.values()):
        yield from (Requirement((path,), _NO_OPTIMIZER) for (_, _, expert), path in paths.items() if expert is None)


def rank_files(checkpoint: Checkpoint) -> dict[Rank, str]:
    """Path by tensor, pipeline and expert rank; None where the names do not tell one."""
    found: dict[Rank, str] = {}
    for entry in checkpoint.listing:
        if match := _RANK.fullmatch(entry.path):
            tensor, pipeline, expert = (None if n is None else int(n) for n in match.groups())
            found[tensor, pipeline, expert] = entry.path
    return found


def _first(checkpoint: Checkpoint) -> str:
    paths = list(rank_files(checkpoint).values())
    if not paths:
        raise FactUnavailable(f"no rank wrote its {_FILE}")
    return paths[0]


def _path(rank: tuple[int | None, ...]) -> str:
    tensor, *others = rank
    return f"mp_rank_{tensor or 0:02d}{''.join(f'_{n:03d}' for n in others if n is not None)}/{_FILE}"

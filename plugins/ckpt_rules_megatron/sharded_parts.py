"""What the tensors of a distributed save must hold between them: all layers, and all moments of each parameter."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, DistributedMetadata, FactUnavailable, Place, Problem, Rule, is_count
from ckpt_rules_megatron.common import arguments
from ckpt_rules_megatron.common_state import common_state, sharded
from ckpt_rules_megatron.ranks import rank_files

_LAYER = re.compile(r"(?:module\.|model\.)*decoder\.layers\.(\d{1,5})\..+")
_STACKED = re.compile(r"(?:module\.|model\.)*decoder\.layers\.(?!\d).+")
_MOMENT = re.compile(r"(?P<chain>(?:chained_\d+\.)?)optimizer\.state\.(?P<kind>[a-z0-9_]+)\.(?P<parameter>.+)")
_LEFT_OUT = ("heterogeneous_layers_config_path", "heterogeneous_layers_config_encoded_json")
_ADAM, _MASTERS = frozenset({"exp_avg", "exp_avg_sq"}), frozenset({"fp32_param"})
_SHOWN, _MOST_LAYERS = 8, 100_000


def wrong_layers(checkpoint: Checkpoint) -> Iterator[Problem]:
    """At most one problem: layers against `num_layers`, whether each has a tensor or all are stacked in one."""
    if rank_files(checkpoint):
        return
    metadata = sharded(checkpoint)
    path, values = checkpoint.fact(common_state)
    args = arguments(values)
    planned = args.get("num_layers")
    if not is_count(planned) or not planned or any(args.get(name) for name in _LEFT_OUT):
        return
    held = {int(m[1]) for name in metadata.tensors if (m := _LAYER.fullmatch(name))}
    absent = sorted(set(range(int(planned))) - held) if len(held) < planned <= _MOST_LAYERS else []
    data: dict[str, object] = {"num_layers": int(planned), "layers": len(held)}
    place, help_ = Place(path=path, key="args.num_layers"), "resume from a save that holds every layer"
    if held and absent:
        which = ", ".join(map(str, absent[:_SHOWN])) + (", …" if len(absent) > _SHOWN else "")
        message = (
            f"the save holds {len(held):,} layers, but the arguments say {int(planned):,}: {which} of "
            "decoder.layers are missing"
        )
        yield Problem(message=message, place=place, help=help_, data={**data, "missing": absent[:100]})
    elif held and len(held) > planned:
        message = f"the save holds {len(held):,} layers, but the arguments say {int(planned):,}"
        yield Problem(message=message, place=place, help=help_, data=data)
    if not held:
        yield from _wrong_stack(metadata, int(planned), place, help_)


def _wrong_stack(metadata: DistributedMetadata, planned: int, place: Place, help_: str) -> Iterator[Problem]:
    for name, tensor in metadata.tensors.items():
        if _STACKED.fullmatch(name) and tensor.shape and tensor.shape[0] != planned:
            yield Problem(
                message=f"{name} stacks {tensor.shape[0]:,} layers, but the arguments say {planned:,}",
                place=Place(path=metadata.path, tensor=name, key=place.key),
                help=help_,
                data={"num_layers": planned, "layers": tensor.shape[0]},
            )
            return


class MissingMoment(Rule):
    """A part of the optimizer's state is there for most parameters and missing for some.

    ## What it checks
    In Megatron-core's distributed form, the tensors `optimizer.state.KIND.PARAMETER`: whether every parameter that has
    any of them has each of Adam's moments (`exp_avg`, `exp_avg_sq`) that most others have. Parameters without any tensor,
    which are frozen, and those of optimizers that keep other moments are left alone.

    ## Why it matters
    The optimizer reads each of them by name when it resumes. Loading stops with `Missing key in checkpoint state_dict`,
    or starts those moments from zero if missing keys are allowed.

    ## How to repair
    Resume from a save that holds them. If each save lacks the same ones, the optimizer did not provide them: check how
    its sharded state is built.
    """

    id = "optimizer/missing-moment"
    tags = frozenset({"resume"})
    applies_to = frozenset({"megatron"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """At most one problem."""
        if rank_files(checkpoint):
            raise FactUnavailable("this is not Megatron-core's distributed form")
        metadata = sharded(checkpoint)
        kinds: dict[str, set[str]] = defaultdict(set)
        for name in metadata.tensors:
            if match := _MOMENT.fullmatch(name):
                kinds[match["chain"] + match["parameter"]].add(match["kind"])
        if not kinds:
            raise FactUnavailable("the optimizer's tensors are not kept by parameter")
        short = _lacking(kinds)
        if short:
            yield _short(metadata.path, short, len(kinds))


def _lacking(kinds: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """The moments that parameters lack and most others have; of optimizers in a chain, some keep other kinds than Adam's."""
    averaged = {name: found & _ADAM for name, found in kinds.items() if found & _ADAM or found <= _MASTERS}
    counts = Counter(kind for found in averaged.values() for kind in found)
    usual = {kind for kind, count in counts.items() if count * 2 > len(averaged)}
    return {name: sorted(usual - found) for name, found in averaged.items() if usual - found}


def _short(path: str, short: Mapping[str, list[str]], total: int) -> Problem:
    name, lacking = next(iter(short.items()))
    more = f"; so does that of {len(short) - 1:,} more" if len(short) > 1 else ""
    return Problem(
        message=f"the optimizer state of {name} lacks {' and '.join(lacking)}, which most of the {total:,} "
        f"parameters have{more}",
        place=Place(path=path, tensor=f"optimizer.state.{lacking[0]}.{name}"),
        help="resume from a save that holds it; loading stops at the missing key",
        data={"parameters": dict(list(short.items())[:100]), "count": len(short)},
    )

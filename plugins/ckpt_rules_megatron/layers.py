"""ranks/layer-range: whether the pipeline's stages hold all layers between them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, TensorInfo, dictionary_or_empty, is_count
from ckpt_rules_megatron.common import arguments
from ckpt_rules_megatron.ranks import rank_files
from ckpt_rules_megatron.sharded_parts import wrong_layers

_LAYER = re.compile(r"(?:.*\.)?layers\.(\d{1,5})\..+")
_MOST_NESTED = 6


class LayerRange(Rule):
    """The stages of the pipeline do not add up to the model.

    ## What it checks
    In Megatron's form of a file for each rank: the layers of all pipeline stages of one tensor rank, together, against
    `num_layers` in the saved arguments; and that all tensor ranks of a stage hold the same number. In the distributed form:
    the layers of `decoder.layers`, each by itself or all stacked in one tensor, against `num_layers`.

    ## Why it matters
    A stage from another split of the model is among the others, or stages overwrote each other's names. The loaded
    model has layers twice, or lacks some.

    ## How to repair
    Resume from a directory into which only one save was written, by one layout of the pipeline.
    """

    id = "ranks/layer-range"
    tags = frozenset({"resume", "load"})
    applies_to = frozenset({"megatron", "megatron-ranks"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each tensor rank whose stages hold another number of layers."""
        files = rank_files(checkpoint)
        if not files:
            yield from wrong_layers(checkpoint)
            return
        held: dict[int, dict[str, int]] = defaultdict(dict)
        planned = None
        for (tensor, _, _), path in files.items():
            values = dictionary_or_empty(checkpoint, path)
            layers = arguments(values).get("num_layers")
            planned = int(layers) if is_count(layers) else planned
            held[tensor or 0][path] = _layers(values)
        if planned is None or not all(all(stages.values()) for stages in held.values()):
            raise FactUnavailable("the arguments give no number of layers, or the layers of a stage can't be counted")
        for tensor, stages in held.items():
            total = sum(stages.values())
            if total != planned:
                path = next(iter(stages))
                yield Problem(
                    message=f"the {len(stages):,} pipeline stages of tensor rank {tensor} hold {total:,} layers, "
                    f"but the arguments say {planned:,}",
                    place=Place(path=path, key="args.num_layers"),
                    help="resume from a directory into which only one save was written",
                    data={"layers": dict(stages), "num_layers": planned},
                )


def _layers(values: Mapping[object, object]) -> int:
    """Layers of every model part in a file; virtual stages keep several parts."""
    parts = [v for k, v in values.items() if isinstance(k, str) and re.fullmatch(r"model\d*", k)]
    return sum(len({m[1] for name in _names(part, "", 0) if (m := _LAYER.fullmatch(name))}) for part in parts)


def _names(value: object, prefix: str, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping) and depth < _MOST_NESTED:
        for key, inner in value.items():
            if isinstance(inner, TensorInfo):
                yield f"{prefix}{key}"
            else:
                yield from _names(inner, f"{prefix}{key}.", depth + 1)

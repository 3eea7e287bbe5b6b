"""The rule about the numbers of layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, FactUnavailable, Place, Problem, Rule, is_count
from ckpt_rules_weights.kinds import tensor_kinds

# The outermost container of like layers. Only layers with parts like a transformer's are counted: in an nn.Sequential called
# `layers` activations and pooling have numbers too, and no weights.
_LAYER = re.compile(r"(?:[^\d*]*?\.)?(?P<container>layers?|h|blocks?)\.\*\.(?P<part>.+\.)")
_MAX_DIGITS = 5
_PART = re.compile(r"attn|attention|mlp|ffn|feed_forward|mixer|ssm|norm|ln_", re.IGNORECASE)
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_ENCODER_DECODER = {"encoder": ("encoder_layers", "num_layers"), "decoder": ("decoder_layers", "num_decoder_layers")}
_FEWER_IS_FINE = ("adapter", "lora")  # files of weights that were trained on top of some layers
_SHOWN = 8


class LayerGap(Rule):
    """Layers are missing, or there are more or fewer than the configuration says.

    ## What it checks
    The numbers in names such as `model.layers.7.` and `transformer.h.7.`: they count from 0 without gaps, and there are
    as many as config.json says (`num_hidden_layers`, `n_layer`, …; `num_nextn_predict_layers` may be added).

    ## Why it matters
    A shard or a pipeline stage was lost, or the configuration is from another model. Loaders initialise missing layers
    randomly and drop surplus ones.

    ## How to repair
    Find the shard that holds the missing layers, or the configuration that matches these weights.
    """

    id = "weights/layer-gap"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each stack of layers."""
        files = checkpoint.weights.complete().files
        if any(word in f.path for f in files for word in _FEWER_IS_FINE):
            return
        stacks = _stacks(checkpoint)
        config = _config(checkpoint)
        for stack, numbers in sorted(stacks.items()):
            expected = _expected(stack, config, len(stacks))
            yield from _holes(files[0].path, stack, numbers, expected)
            yield from _other_count(files[0].path, stack, numbers, expected, _predictors(config))


def _holes(path: str, stack: str, numbers: set[int], expected: tuple[str, int] | None) -> Iterator[Problem]:
    """Numbers that are missing below the highest, unless that is so many that the others can't be a stack of layers."""
    missing = sorted(set(range(max(numbers) + 1)) - numbers)
    if missing and (2 * len(missing) <= len(numbers) or (expected and expected[1] > max(numbers))):
        shown = ", ".join(map(str, missing[:_SHOWN])) + (" …" if len(missing) > _SHOWN else "")
        yield Problem(
            message=f"{stack} has layers numbered up to {max(numbers)}, but lacks {len(missing):,} of them: {shown}",
            place=Place(path=path, tensor=f"{stack}.{missing[0]}"),
            help="find the shard or pipeline stage that contains them",
            data={"missing": missing[:1000], "found": len(numbers)},
        )


def _other_count(
    path: str, stack: str, numbers: set[int], expected: tuple[str, int] | None, predictors: int
) -> Iterator[Problem]:
    """Another number of layers, without a hole, than the configuration says; `predictors` may come on top."""
    if expected is None or len(numbers) <= max(numbers):
        return
    key, count = expected
    if len(numbers) not in (count, count + predictors):
        yield Problem(
            message=f"{stack} has {len(numbers):,} layers, but the configuration says {key} = {count:,}",
            place=Place(path=path, tensor=f"{stack}.{min(count, len(numbers) - 1)}"),
            help="find the missing layers, or the configuration that matches these weights",
            data={"found": len(numbers), "expected": count},
        )


def _stacks(checkpoint: Checkpoint) -> Mapping[str, set[int]]:
    """The numbers of the layers in each stack, by the name before the number."""
    stacks: dict[str, set[int]] = defaultdict(set)
    for pattern, members in tensor_kinds(checkpoint).items():
        m = _LAYER.match(pattern)
        if m and "lora_" not in pattern and _PART.search(m["part"]):
            stack = pattern[: m.end("container")]
            depth = stack.count(".") + 1
            numbers = {name.split(".", depth + 1)[depth] for _, name, _ in members}
            stacks[stack] |= {int(n) for n in numbers if len(n) <= _MAX_DIGITS}
    return {stack: numbers for stack, numbers in stacks.items() if numbers}


def _config(checkpoint: Checkpoint) -> Mapping[str, object]:
    try:
        return checkpoint.config.values
    except FactUnavailable:
        return {}


def _predictors(config: Mapping[str, object]) -> int:
    """Layers for predicting further tokens, which lie behind the counted ones and may have been left out of the save."""
    count = config.get("num_nextn_predict_layers")
    return int(count) if is_count(count) else 0


def _expected(stack: str, config: Mapping[str, object], stacks: int) -> tuple[str, int] | None:
    """The configuration's key and number for a stack; None where it does not clearly speak of this one."""
    half = next((h for h in _ENCODER_DECODER if h in stack.split(".")), None)
    if half and stacks > 1:
        keys: tuple[str, ...] = _ENCODER_DECODER[half]
    elif stacks == 1:
        keys = _COUNTS
    else:
        return None
    return next(((k, int(v)) for k in keys if is_count(v := config.get(k)) and v > 0), None)

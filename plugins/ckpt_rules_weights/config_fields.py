"""config/bad-field: what config.json holds where a size or a dtype belongs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ckpt_rules import DTYPE_BITS, Checkpoint, Place, Problem, Rule

# Some models keep a list or a dictionary of them, of one for each layer or part, and none an empty one or text.
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "n_embd", "n_layer", "n_head",
)  # fmt: skip
_COMPARED = "vocab_size"
_ROTATED = "head_dim"
_ROTATIONS = ("rope_parameters", "rope_scaling")
_ROTARY = frozenset({*_ROTATIONS, "rope_theta"})
_DTYPES = ("dtype", "torch_dtype")
_MORE_DTYPES = frozenset({"auto", "float", "double", "half", "bfloat", "int", "long", "short", "cfloat", "cdouble"})


class BadConfigField(Rule):
    """A field of config.json has a value that transformers can't build a configuration from.

    ## What it checks
    The sizes of a model (`vocab_size`, `hidden_size`, `num_hidden_layers`, `head_dim`, …) are numbers, several of them
    or null (of `vocab_size` one, where tokens such as `eos_token_id` are compared with it, and of `head_dim` one, where
    positions are rotated), `rope_parameters` and `rope_scaling` are dictionaries or null, and `dtype` or `torch_dtype`
    is the name of a dtype of torch. A config.json without `model_type` or `architectures` is not from transformers and
    is not checked.

    ## Why it matters
    `from_pretrained` fails on such a field, and so does a resume with the Trainer, which reads the checkpoint's
    config.json to compare versions: for example with `module 'torch' has no attribute 'float3'`.

    ## How to repair
    Take config.json from the model that training started from, or from another save of the run.
    """

    id = "config/bad-field"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each field."""
        config = checkpoint.config
        values = config.values
        if not {"model_type", "architectures"} & values.keys():
            return
        for name in _SIZES:
            value = values.get(name)
            several = isinstance(value, Mapping | list)
            infinite = isinstance(value, float) and not math.isfinite(value)
            if isinstance(value, str) or infinite or (several and (not value or _is_one(name, values))):
                yield _problem(config.path, name, value, "expected a number")
        for name in _ROTATIONS:
            value = values.get(name)
            if value is not None and not isinstance(value, Mapping):
                yield _problem(config.path, name, value, "expected a dictionary")
        for name in _DTYPES:
            value = values.get(name)
            if isinstance(value, str) and not _is_dtype(value.removeprefix("torch.")):
                yield _problem(config.path, name, value, "which is not a torch dtype")


def _is_one(name: str, values: Mapping[str, object]) -> bool:
    """Whether transformers computes with a size as a single number."""
    if name == _ROTATED:
        return "auto_map" not in values and bool(_ROTARY & values.keys())
    return name == _COMPARED and _is_compared(values)


def _is_compared(values: Mapping[str, object]) -> bool:
    """Whether transformers, as it builds the configuration, compares the ids of special tokens with the size of the vocabulary.

    A model with code of its own may have several vocabularies.
    """
    ids = (v for k, v in values.items() if k.endswith("_token_id"))
    return "auto_map" not in values and any(isinstance(v, int) and v >= 0 for v in ids)


def _is_dtype(name: str) -> bool:
    return name in DTYPE_BITS or name in _MORE_DTYPES


def _problem(path: str, name: str, value: object, said: str) -> Problem:
    return Problem(
        message=f"{name} in {path} is {repr(value)[:60]}, {said}",
        place=Place(path=path, key=name),
        help="take config.json from the model that training started from, or from another save of the run",
        data={"field": name, "value": repr(value)[:60]},
    )

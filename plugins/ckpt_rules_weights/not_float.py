"""weights/not-float: weights stored in a dtype that no layer computes with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import (
    FLOAT_DTYPES,
    Checkpoint,
    FactUnavailable,
    Place,
    Problem,
    Rule,
    Severity,
    WeightFile,
    state_dicts,
)
from ckpt_rules_weights.architectures import FAMILIES
from ckpt_rules_weights.kinds import Located, tensor_kinds
from ckpt_rules_weights.quantised import QUANTISED, is_declared

_OF_MODULE = re.compile(r".+\.(weight|bias)")
_WIDE = frozenset({"int16", "uint16", "int32", "uint32", "int64", "uint64"})
_PACKED = frozenset({"int8", "uint8", "bool"})
_FLOAT8 = frozenset(d for d in FLOAT_DTYPES if d.startswith("float8"))
_ODD = _WIDE | _PACKED | _FLOAT8
_SCALES = ("_scale_inv", "_scale", "_scales", ".scale")
_CAST = "resume from an earlier save, and check what casts the weights before they are saved"
_DECLARE = (
    "add the `quantization_config` that the weights were made with to config.json, or save them in floating point"
)


class NotFloat(Rule):
    """Weights are stored as integers or float8 without a quantisation config, or as something other than a tensor.

    ## What it checks
    The dtype of every `weight` and `bias`. In a known architecture, each must be floating-point unless config.json
    declares a quantisation; float8 alone is a warning, and an error if there are also scales that nothing reads. In any
    other model: weights that are integers in one layer and floating-point in the next, and weights that are all
    integers of 16 bits or more. In a model's `state_dict` that torch saved: a number, text or a dictionary under the
    name of a module's `weight` or `bias`.

    ## Why it matters
    Loaders cast what they find: a norm of 0.98 that was stored as an integer is 0, packed numbers are taken as values.
    The model is silently broken. If an entry is not a tensor, `load_state_dict` fails.

    ## How to repair
    Resume from an earlier save, and check what casts the weights. If they are quantised, add the configuration that
    says how.
    """

    id = "weights/not-float"
    tags = frozenset({"load", "resume"})

    def check(self, checkpoint: Checkpoint) -> Iterator[Problem]:
        """One problem for each dtype in each file, and one for what is not a tensor."""
        for file in checkpoint.weights.files:
            yield from _no_tensors(file, _state_dict(checkpoint, file))
        config = _config(checkpoint)
        if is_declared(checkpoint, config) or "float8" in str(config.get("dtype", config.get("torch_dtype"))):
            raise FactUnavailable("the configuration says that the weights are quantised")
        family = config.get("model_type")
        if isinstance(family, str) and family in FAMILIES:
            yield from _in_known(checkpoint, family)
        else:
            yield from _in_unknown(checkpoint)


def _config(checkpoint: Checkpoint) -> Mapping[str, object]:
    try:
        return checkpoint.config.values
    except FactUnavailable:
        return {}


def _state_dict(checkpoint: Checkpoint, file: WeightFile) -> Mapping[object, object]:
    """What a file of torch keeps under the key of the weights; nothing where it is of another format, or no dictionary."""
    if file.format != "torch":
        return {}
    try:
        value = checkpoint.files.contents(file.path)
    except FactUnavailable:
        return {}
    value = value.get(file.key) if file.key and isinstance(value, Mapping) else value
    return value if isinstance(value, Mapping) else {}


def _no_tensors(file: WeightFile, entries: Mapping[object, object]) -> Iterator[Problem]:
    found = [(k, v) for k, v in entries.items() if isinstance(k, str) and _OF_MODULE.fullmatch(k)]
    odd = [(k, v) for k, v in found if isinstance(v, Mapping | int | float | str)]
    if odd and 2 * len(odd) < len(found):
        name, value = odd[0]
        more = f" (and {len(odd) - 1:,} more like it)" if len(odd) > 1 else ""
        yield Problem(
            message=f"{name} is {state_dicts.described(value)}{more}, expected a tensor: load_state_dict fails on it",
            place=Place(path=file.path, tensor=name, key=file.key or None),
            help="resume from an earlier save, or take the tensor from another copy of this one",
            data={"tensors": [k for k, _ in odd[:100]], "count": len(odd)},
        )


def _is_parameter(located: Located) -> bool:
    """Whether a tensor is one that a layer computes with; masks in the attention are called `bias` as well."""
    _, name, tensor = located
    last = name.rpartition(".")[2]
    return bool(tensor.shape) and (last == "weight" or (last == "bias" and len(tensor.shape) == 1))


def _in_known(checkpoint: Checkpoint, family: str) -> Iterator[Problem]:
    for file in checkpoint.weights.files:
        odd = [(file, n, t) for n, t in file.tensors.items() if t.dtype in _ODD and _is_parameter((file, n, t))]
        if odd and any(map(QUANTISED.fullmatch, file.tensors)):
            continue  # weights/shape-vs-config reports it
        for dtype in dict.fromkeys(t.dtype for *_, t in odd):
            members = [located for located in odd if located[2].dtype == dtype]
            if dtype in _WIDE:
                yield _problem(members, f"but every weight of this architecture ({family}) is floating-point", _CAST)
                continue
            scaled = any(f"{name}{end}" in file.tensors for _, name, _ in members for end in _SCALES)
            severity = Severity.WARNING if dtype in _FLOAT8 and not scaled else None
            yield _problem(members, "but config.json declares no quantisation", _DECLARE, severity)


def _in_unknown(checkpoint: Checkpoint) -> Iterator[Problem]:
    if not any(tensor.dtype in _WIDE for file in checkpoint.weights.files for tensor in file.tensors.values()):
        return
    kinds = {k: [m for m in members if _is_parameter(m)] for k, members in tensor_kinds(checkpoint).items()}
    parameters = [located for members in kinds.values() for located in members]
    if parameters and all(tensor.dtype in _WIDE for *_, tensor in parameters):
        yield _problem(parameters, "and none of the weights is floating-point", _CAST)
        return
    for kind, members in kinds.items():
        wide = [located for located in members if located[2].dtype in _WIDE]
        floats = sorted({t.dtype for *_, t in members if t.dtype in FLOAT_DTYPES})
        if wide and floats:
            yield _problem(wide, f"but {kind} is {floats[0]} in other layers", _CAST)


def _problem(found: list[Located], why: str, help_: str, severity: Severity | None = None) -> Problem:
    file, name, tensor = found[0]
    more = f" (and {len(found) - 1:,} more like it)" if len(found) > 1 else ""
    return Problem(
        message=f"the weight of shape {list(tensor.shape)} is stored as {tensor.dtype}{more}, {why}",
        place=Place(path=file.path, tensor=name, key=file.key or None),
        help=help_,
        severity=severity,
        data={"dtype": tensor.dtype, "tensors": len(found)},
    )

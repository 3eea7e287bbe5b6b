"""The training state of the plain layout, and what its writer's convention lets one expect in it.

The canonical convention counts `epoch`, `step` and `total_batches` and keeps optimizer, scheduler and scaler beside them.
People who write all in one file keep fewer things, and are not asked for more than an optimizer and one counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ckpt_rules import (
    Checkpoint,
    FactUnavailable,
    Field,
    Opaque,
    Severity,
    TrainingState,
    is_count,
    misspelling_of,
    options,
    plain,
)
from ckpt_rules_torch import names, shapes
from ckpt_rules_torch.state_file import find_state_file

Values = Mapping[object, object]

_TRIO = ("epoch", "step", "total_batches")
_PRECISION_KEYS = (
    "bf16",
    "use_bf16",
    "fp16",
    "use_fp16",
    "mixed_precision",
    "precision",
    "amp_dtype",
    "torch_dtype",
    "dtype",
)
_AMP_KEYS = ("amp", "use_amp", "enable_amp")
_FP16 = frozenset({"16", "fp16", "float16", "16-mixed", "torch.float16", "half"})
_WHY = {
    "epoch": "without it the epoch to resume is unknown",
    "step": "without it, it is unknown whether the epoch is complete and which batches to skip",
    "total_batches": "without it the position within the epoch is unknown",
    "progress counter": "without an epoch, a step or an update count, training would start counting from zero",
    "optimizer": "without it the optimizer's moments and counters start again from zero",
    "scheduler": "without it the learning-rate schedule restarts",
    "scaler": "a legacy checkpoint without AMP state: the loss scale restarts from its initial value",
    "rng": "without it shuffling and dropout differ from those of an uninterrupted run",
}


def read_state(checkpoint: Checkpoint) -> TrainingState:
    """The dictionary in the state file, and its fields."""
    file = checkpoint.fact(find_state_file)
    if file is None:
        raise FactUnavailable("there is no training state: neither training_state.pth nor another file that holds one")
    values = checkpoint.files.contents(file.path)
    if not isinstance(values, Mapping):
        message = f"{file.path} holds no dictionary, so there is no training state in it"
        raise FactUnavailable(message, path=file.path, blocked=True)
    return TrainingState(file.path, values, _fields(checkpoint, file.path, values))


def configurations(checkpoint: Checkpoint, values: Values) -> list[Values]:
    """Dictionaries of options: inside the state, and in config.json."""
    found = [options(values.get(name)) for name in names.CONFIGS]
    try:
        outside = checkpoint.files.json("config.json").value
    except FactUnavailable:
        outside = None
    if isinstance(outside, Mapping):
        found += [outside, *(options(outside.get(name)) for name in ("training", "train", "trainer"))]
    return [f for f in found if f]


def _fields(checkpoint: Checkpoint, path: str, values: Values) -> tuple[Field, ...]:
    canonical = _is_canonical(path, values)
    fp16 = _half_precision(configurations(checkpoint, values))
    severities: dict[str, Severity | None] = {
        "epoch": Severity.ERROR if canonical else None,
        "step": Severity.ERROR if canonical else None,
        "total_batches": Severity.WARNING if canonical else None,
        "optimizer": Severity.ERROR,
        "scheduler": Severity.WARNING if canonical else None,
        # Without options nobody can tell a run in full precision from one that lost its scaler.
        "scaler": Severity.WARNING if fp16 else Severity.INFO if fp16 is None and canonical else None,
        "progress counter": None if canonical or _counts_anything(values) else Severity.ERROR,
    }
    keys = {
        **{name: names.COUNTERS[name] for name in (*_TRIO, "global_step", *names.PLANS)},
        "progress counter": (*names.EPOCH, *names.GLOBAL_STEP, *names.STEP),
        "optimizer": _keys(values, names.OPTIMIZER, shapes.is_optimizer, (Mapping, list, tuple, Opaque)),
        "scheduler": _keys(values, names.SCHEDULER, shapes.is_scheduler, (Mapping, list, tuple, Opaque)),
        "scaler": _keys(values, names.SCALER, shapes.is_scaler, (Mapping,)),
        "rng": _rng_keys(values),
        "weights": names.WEIGHTS,
        "ema": names.EMA,
        "config": names.CONFIGS,
    }
    return tuple(Field(name, tuple(k), severities.get(name), _WHY.get(name, "")) for name, k in keys.items())


def _is_canonical(path: str, values: Values) -> bool:
    """Whether the state follows the convention for plain training states, one of its counters at most being absent."""
    counted = [name for name in _TRIO if values.get(name) is not None]
    stem = path.partition(".")[0]
    if "total_batches" in counted:
        return len(counted) > 1
    return stem in names.CANONICAL_STEMS and len(counted) > 1 and not _is_global(values)


def _is_global(values: Values) -> bool:
    """Whether `step`, no length of an epoch being recorded, counts from the start of training."""
    step = plain(values["step"])
    if not is_count(step) or step == 0:
        return False
    updates = _updates(values)
    return updates is None or step >= updates


def _updates(values: Values) -> int | None:
    states = options(options(values.get(shapes.first(values, names.OPTIMIZER) or "")).get("state"))
    steps = [plain(options(s).get("step")) for s in states.values()]
    return max((int(s) for s in steps if is_count(s)), default=None)


def _keys(
    values: Values, usual: tuple[str, ...], fits: Callable[[object], bool], kinds: tuple[type, ...]
) -> Iterable[str]:
    """The usual keys but for those whose value is something else by the same name, then others that hold such a thing.

    kinds: what the value may be, right or wrong, to be taken for one at all
    """
    sure = usual[:1]
    keys = [
        k
        for k in usual
        if k in sure or values.get(k) is None or (isinstance(values[k], kinds) and _may_be(k, values[k], fits))
    ]
    known = {*usual, *names.WEIGHTS, *names.RNG, *names.CONFIGS}
    others = [k for k, v in values.items() if isinstance(k, str) and k not in known and v and fits(v)]
    if len(others) == 1 and misspelling_of(others[0], usual):
        others = []
    present = [k for k in keys if values.get(k) is not None]
    return [*present, *others, *(k for k in keys if k not in present)]


def _may_be(key: str, value: object, fits: Callable[[object], bool]) -> bool:
    """A bare `scaler` or `amp` may be anything: a feature scaler, say. A `…_state…` is meant to be one."""
    return "state" in key or fits(value) or fits is not shapes.is_scaler


def _rng_keys(values: Values) -> list[str]:
    found = [
        k
        for k, v in values.items()
        if isinstance(k, str)
        and ("rng" in k.lower().split("_") or "random_state" in k.lower())
        and v is not None
        and not shapes.is_number(v)
        and not misspelling_of(k, names.RNG)
    ]
    return found + [k for k in names.RNG if k not in found]


def _counts_anything(values: Values) -> bool:
    """Whether any key, at the top or in a group of counters, sounds like progress and holds a number or more."""
    groups = [values, *(options(values.get(name)) for name in names.COUNTER_GROUPS)]
    return any(
        isinstance(k, str)
        and v is not None
        and any(word in k.lower() for word in names.COUNTER_WORDS)
        and not isinstance(v, str)
        for group in groups
        for k, v in group.items()
    )


def _half_precision(configurations: Iterable[Values]) -> bool | None:
    """Whether options say fp16 (True) or bf16 (False); None where they don't say."""
    configurations = list(configurations)
    said = {_precision(key, options.get(key)) for options in configurations for key in _PRECISION_KEYS}
    if "bf16" in said:
        return False
    scaled = any(options.get(key) is True for options in configurations for key in _AMP_KEYS)
    if scaled and not any(str(options.get("device")).startswith("cpu") for options in configurations):
        said.add("fp16")  # bfloat16 needs no scaler, and says so by its name
    return True if "fp16" in said else None


def _precision(key: str, value: object) -> str | None:
    if value is True:
        return key.removeprefix("use_")
    text = str(value).lower()
    if "bf16" in text or "bfloat16" in text:
        return "bf16"
    # A dtype alone is that of the weights: half-precision weights need no scaler, and nanoGPT saves none with them.
    return "fp16" if "dtype" not in key.split("_")[-1:] and text in _FP16 else None

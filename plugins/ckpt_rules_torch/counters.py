"""The counters of the plain layout as they are written: in the state, in a group inside it, in its options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpt_rules import Checkpoint, Recorded, TensorInfo, TrainingState, is_count, options, plain
from ckpt_rules_torch import names, shapes
from ckpt_rules_torch.state import configurations

Values = Mapping[object, object]


def read_counters(checkpoint: Checkpoint) -> tuple[Recorded, ...]:
    """Every counter by its canonical name, once."""
    state = checkpoint.state
    found: dict[str, Recorded] = {}
    for recorded in _candidates(checkpoint, state):
        found.setdefault(recorded.name, recorded)
    return tuple(_as_meant(found).values())


def _candidates(checkpoint: Checkpoint, state: TrainingState) -> Iterator[Recorded]:
    yield from _in_group(state.values, state.path, "")
    for name in names.COUNTER_GROUPS:
        yield from _in_group(options(state.values.get(name)), state.path, f"{name}.")
    for settings in configurations(checkpoint, state.values):
        yield from _plans(settings, state.path)


def _in_group(values: Values, path: str, prefix: str) -> Iterator[Recorded]:
    for name, keys in names.COUNTERS.items():
        # What goes by a canonical name is meant to be the counter, whatever it is; by another, only if it is a number.
        key = next(
            (k for k in keys if values.get(k) is not None and (k == keys[0] or shapes.is_number(values[k]))), None
        )
        if key is not None and (value := _written(values[key])) is not None:
            yield Recorded(name, value, path, f"{prefix}{key}")


def _written(value: object) -> object:
    """The number; None where it can't be known, as for a tensor with one element in one dimension."""
    known = plain(value)
    return value if known is None and isinstance(value, TensorInfo) and value.numel != 1 else known


def _plans(options: Values, path: str) -> Iterator[Recorded]:
    """What options plan: never at fault, for `auto` and -1 are what people write there."""
    for name, keys in names.PLANS.items():
        key = next((k for k in keys if shapes.is_number(options.get(k))), None)
        if key is not None and is_count(value := plain(options[key])) and value > 0:
            yield Recorded(name, value, path, key)


def _as_meant(found: dict[str, Recorded]) -> dict[str, Recorded]:
    """A step past the end of an epoch counts all of training, unless both keys are those of the canonical convention."""
    step, total = found.get("step"), found.get("total_batches")
    if not step or not total or "global_step" in found:
        return found
    if total.key == names.TOTAL_BATCHES[0] and step.key.rpartition(".")[2] not in names.AMBIGUOUS_STEP:
        return found
    if is_count(step.value) and is_count(total.value) and step.value >= total.value:
        rest = {k: v for k, v in found.items() if k != "step"}
        return rest | {"global_step": Recorded("global_step", step.value, step.path, step.key)}
    return found

"""What Lightning's loops and connectors stop at when they restore, by the classes of `lightning.pytorch` 2.6."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ckpt_rules import Contradiction, TensorInfo, is_count

# As packaging.version.Version takes it.
_VERSION = re.compile(
    r"\s*v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|a|beta|b|preview|pre|c|rc)[-_.]?\d*)?(?:-\d+|[-_.]?(?:post|rev|r)[-_.]?\d*)?"
    r"(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?\s*",
    re.IGNORECASE,
)
_FIT = "loops.fit_loop"
_BATCHES = "epoch_loop.batch_progress"
_COUNTED = ("ready", "started", "processed", "completed")
_ALWAYS = frozenset({"ready", "completed"})
_STEPPED = "_batches_that_stepped"
_AUTOMATIC, _OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress", ("step", "zero_grad")
_MANUAL = "epoch_loop.manual_optimization.optim_step_progress"  # which only runs with manual optimization count on
_READ_STATES = ("state_dict", "epoch_loop.state_dict")
_VERSION_KEY, _SCHEDULERS, _CALLBACKS = "pytorch-lightning_version", "lr_schedulers", "callbacks"


def broken_fields(path: str, state: Mapping[object, object]) -> Iterator[Contradiction]:
    """Fields of a kind that Lightning can't restore from, each with what becomes of it."""
    version = state.get(_VERSION_KEY)
    if _VERSION_KEY in state and version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        yield _stops(path, _VERSION_KEY, version, "which is not a version: Lightning stops with InvalidVersion")
    if _SCHEDULERS in state and state[_SCHEDULERS] is None:
        yield _stops(path, _SCHEDULERS, None, "where a list belongs: Lightning stops with TypeError")
    callbacks = state.get(_CALLBACKS)
    if callbacks is not None and not isinstance(callbacks, Mapping):
        yield _stops(path, _CALLBACKS, callbacks, "where a dictionary belongs: Lightning stops with AttributeError")
    loops = state.get("loops")
    fit = loops.get("fit_loop") if isinstance(loops, Mapping) else None
    if isinstance(fit, Mapping):
        yield from _in_loop(path, fit)


def _in_loop(path: str, fit: Mapping[object, object]) -> Iterator[Contradiction]:
    for name, value in fit.items():
        key = f"{_FIT}.{name}"
        if name == _AUTOMATIC:
            yield from _in_optimizer(path, key, value)
        elif name == _MANUAL:
            yield from _in_progress(path, key, value, last=False, counted=False)
        elif str(name).endswith("progress"):
            yield from _in_progress(path, key, value, last=str(name).endswith("batch_progress"))
        elif name in _READ_STATES:
            yield from _in_state(path, key, value)
    if _BATCHES not in fit and isinstance(fit.get("epoch_progress"), Mapping) and fit["epoch_progress"]:
        words = "the fit loop has no epoch_loop.batch_progress: Lightning starts the epoch again at its first batch"
        yield Contradiction(path, f"{_FIT}.{_BATCHES}", words)


def _in_optimizer(path: str, key: str, value: object) -> Iterator[Contradiction]:
    inner = value.get("optimizer") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(inner, Mapping):
        yield _stops(path, key, value, "which lacks the dictionary 'optimizer': Lightning stops")
        return
    for part in _OPTIMIZER:
        yield from _in_progress(path, f"{key}.optimizer.{part}", inner.get(part), last=False)


def _in_progress(path: str, key: str, value: object, *, last: bool, counted: bool = True) -> Iterator[Contradiction]:
    """last: whether it says as well if the last batch was the last of all; counted: whether every run counts on from it."""
    needed = ("total", "current", "is_last_batch") if last else ("total", "current")
    if not isinstance(value, Mapping):
        yield _stops(path, key, value, "where a dictionary of counters belongs: Lightning stops")
        return
    lacking = next((name for name in needed if name not in value), None)
    if lacking:
        yield Contradiction(path, key, f"{key} has no '{lacking}': Lightning stops with KeyError: '{lacking}'")
        return
    if last and not isinstance(value["is_last_batch"], bool):
        yield _stops(path, f"{key}.is_last_batch", value["is_last_batch"], "where True or False belongs")
    parts = {name: value[name] for name in ("total", "current")}
    names = _ALWAYS.union(*(part.keys() & set(_COUNTED) for part in parts.values() if isinstance(part, Mapping)))
    for part, counts in parts.items():
        if isinstance(counts, Mapping):
            yield from _in_counts(path, f"{key}.{part}", counts, names if counted else frozenset())
        else:
            yield _stops(path, f"{key}.{part}", counts, "where a dictionary of counters belongs")


def _in_counts(path: str, key: str, counts: Mapping[object, object], names: frozenset[str]) -> Iterator[Contradiction]:
    for name in _COUNTED:
        if name in names and name not in counts:
            words = f"{key} has no '{name}': Lightning continues with the new loop's own count"
            yield Contradiction(path, key, words)
        elif name in names and not _is_whole(counts[name]):
            yield _stops(path, f"{key}.{name}", counts[name], "where a count belongs")


def _is_whole(value: object) -> bool:
    return is_count(value) and isinstance(value, int)


def _in_state(path: str, key: str, value: object) -> Iterator[Contradiction]:
    if not isinstance(value, Mapping):
        yield _stops(path, key, value, "where a dictionary belongs: Lightning stops with AttributeError")
    elif _STEPPED in value and not isinstance(value[_STEPPED], int | float):
        yield _stops(path, f"{key}.{_STEPPED}", value[_STEPPED], "where a number belongs: Lightning stops")


def _stops(path: str, key: str, value: object, why: str) -> Contradiction:
    return Contradiction(path, key, f"{key} is {_shown(value)}, {why}")


def _shown(value: object) -> str:
    if isinstance(value, TensorInfo):
        return f"a {value.dtype} tensor"
    if isinstance(value, Mapping):
        return f"a dictionary of {len(value):,}" if value else "{}"
    return repr(value)[:60] if isinstance(value, str | int | float | list | tuple | None) else "an object"

"""torch's `state_dict` conventions: plain values -> optimizer, scheduler, scaler and RNG facts.

Whatever a file holds in their place, these functions return a fact or raise `FactUnavailable`: not blocked where there is
no such thing, blocked where there is one that is not valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from ckpt_rules.errors import FactUnavailable
from ckpt_rules.facts.loaders import LoaderState
from ckpt_rules.facts.tensors import JsonFile, Opaque, TensorInfo
from ckpt_rules.facts.training import (
    ModelConfig,
    OptimizerState,
    ParamGroup,
    ParamState,
    RngState,
    ScalerState,
    SchedulerState,
    is_count,
    plain,
)
from ckpt_rules.readers.state_dicts.kinds import optimizer_kind, scheduler_kind
from ckpt_rules.readers.state_dicts.random_states import Head, faults_of
from ckpt_rules.readers.state_dicts.resemblance import OPTIMIZER, SCALER, SCHEDULER, resemblance
from ckpt_rules.readers.state_dicts.words import described, join

_MOST_NESTED = 4
_SOURCES = {"python": ("python", "random"), "numpy": ("numpy", "np"), "torch": ("torch", "cpu"), "cuda": ("cuda",)}


def optimizer(value: object, path: str, key: str | None, *, alone: bool = False) -> OptimizerState:
    """An optimizer's `state_dict`; a list or dictionary that holds one optimizer stands for that one, unless `alone`."""
    value, key = _only(value, "optimizer", path, key, alone=alone)
    if (looks := resemblance(value)) not in (None, OPTIMIZER):
        _unlike("optimizer", f"looks like {looks}", path, key)
    groups = _groups(value.get("param_groups"), path, key)
    states = _states(value.get("state"), groups, path, key)
    return OptimizerState(path, key, optimizer_kind(groups, states.values()), groups, states)


def scheduler(value: object, path: str, key: str | None, *, alone: bool = False) -> SchedulerState:
    """A scheduler's `state_dict`. What a chain of schedulers does not count itself, its first one does."""
    value, key = _only(value, "scheduler", path, key, alone=alone)
    if (looks := resemblance(value)) not in (None, SCHEDULER):
        _unlike("scheduler", f"looks like {looks}", path, key)
    return _scheduler(value, path, key)


def _scheduler(value: Mapping[object, object], path: str, key: str, depth: int = 0) -> SchedulerState:
    values = {k: v for k, v in value.items() if isinstance(k, str)}
    inner = _list(values.get("_schedulers")) if depth < _MOST_NESTED else []
    nested = inner if all(isinstance(v, Mapping) for v in inner) else []
    parts = tuple(
        _scheduler(v, path, join(key, f"_schedulers[{i}]"), depth + 1)
        for i, v in enumerate(nested)
        if isinstance(v, Mapping)
    )
    counted = "last_epoch" in values or not parts
    return SchedulerState(
        path=path,
        key=key,
        kind=scheduler_kind(values),
        values=values,
        last_epoch=plain(values.get("last_epoch")) if counted else parts[0].last_epoch,
        step_count=plain(values.get("_step_count")) if counted else parts[0].step_count,
        last_lr=_numbers(values.get("_last_lr")),
        base_lrs=_numbers(values.get("base_lrs")) if "base_lrs" in values or not parts else parts[0].base_lrs,
        parts=parts,
        milestones=_numbers(values.get("_milestones")),
    )


def scaler(value: object, path: str, key: str | None) -> ScalerState:
    """A gradient scaler's `state_dict`, or apex's, which holds one dictionary for each loss."""
    value, key = _only(value, "gradient scaler", path, key)
    if (looks := resemblance(value)) not in (None, SCALER):
        _unlike("gradient scaler", f"looks like {looks}", path, key)
    if not value:
        return ScalerState(path, key, enabled=False)
    if "scale" not in value and isinstance(loss := value.get("loss_scaler0"), Mapping):
        return ScalerState(path, join(key, "loss_scaler0"), True, plain(loss.get("loss_scale")), loss.get("unskipped"))
    name = "scale" if "scale" in value else "cur_scale"
    return ScalerState(path, key, True, plain(value.get(name)), plain(value.get("_growth_tracker")))


def data_loader(value: object, path: str, key: str) -> LoaderState:
    """What torchdata's StatefulDataLoader keeps, by itself or with workers; of other loaders, only that there is one."""
    values = value if isinstance(value, Mapping) else {}
    snapshot = values.get("_snapshot")
    given, finished = values.get("_num_yielded"), values.get("_iterator_finished")
    if isinstance(snapshot, Mapping):
        counts = [plain(n) for n in (snapshot.get("_snapshot_step"), values.get("_steps_since_snapshot"))]
        known = [n for n in counts if is_count(n)]
        given = sum(known) if len(known) == len(counts) else next((n for n in counts if not is_count(n)), None)
    return LoaderState(path, key, plain(given), finished if isinstance(finished, bool) else None)


def rng(
    value: object,
    path: str,
    key: str | None,
    needed: Mapping[str, str] | None = None,
    *,
    logged: bool = False,
    head: Head | None = None,
) -> RngState:
    """RNG state: a dictionary with an entry for each generator, or the state of torch's or python's alone.

    needed: the keys that the trainer reads, each with its generator; logged: whether it continues where it can't
    head: the first 24 bytes of a tensor
    """
    if key is None or (value is None and key):
        _absent("random-number state", key)
    if (needed and not isinstance(value, Mapping)) or not isinstance(value, Mapping | TensorInfo | list | tuple):
        message = f"{_place(path, key)} is {described(value)}, not random-number state"
        raise FactUnavailable(message, path=path, blocked=True)
    return RngState(path, key, _sources(value), faults_of(value, key, needed or {}, head), logged)


def _sources(value: object) -> frozenset[str]:
    """The generators whose state this is."""
    if isinstance(value, Mapping):
        words = {word for k, v in value.items() if v is not None for word in str(k).lower().replace("_", " ").split()}
        return frozenset(s for s, names in _SOURCES.items() if words.intersection(names))
    if isinstance(value, list | tuple) and not isinstance(value, TensorInfo):
        return frozenset({"cuda" if isinstance(value[0], TensorInfo) else "python"} if value else ())
    return frozenset({"torch"})


def config_file(file: JsonFile) -> ModelConfig:
    """A model's `config.json`."""
    fatal = next((p for p in file.problems if p.fatal), None)
    if fatal:
        raise FactUnavailable(f"{file.path} can't be read: {fatal.message}", path=file.path, blocked=True)
    if not isinstance(file.value, Mapping):
        message = f"{file.path} holds {described(file.value)}, not a dictionary"
        raise FactUnavailable(message, path=file.path, blocked=True)
    return ModelConfig(file.path, "", file.value)


def _only(
    value: object, what: str, path: str, key: str | None, *, alone: bool = False
) -> tuple[Mapping[object, object], str]:
    """The one `state_dict`, and its key, of a value that may be a list or a dictionary of such, unless it is `alone`."""
    if key is None or (value is None and key):
        _absent(f"{what} state", key)
    several = {} if alone else _several(value, key)
    if len(several) > 1:
        raise FactUnavailable(f"'{key}' holds {len(several):,} {what}s, which are not distinguished")
    for inner, only in several.items():
        return only, inner
    if not isinstance(value, Mapping):
        # A whole pickled optimizer can be resumed from; it just can't be looked into without running it.
        _unlike(what, f"is {described(value)}", path, key, blocked=not isinstance(value, Opaque))
    return value, key


def _unlike(what: str, said: str, path: str, key: str, *, blocked: bool = True) -> NoReturn:
    message = f"{_place(path, key)} {said}, where the state_dict of {_a(what)} belongs"
    raise FactUnavailable(message, path=path, blocked=blocked)


def _several(value: object, key: str) -> dict[str, Mapping[object, object]]:
    """The dictionaries in a list; and optimizers by name, as scripts of two models keep them."""
    if isinstance(value, list | tuple):
        found = {f"{key}[{i}]": v for i, v in enumerate(value) if isinstance(v, Mapping)}
        return found if len(found) == len(value) else {}
    named = value if isinstance(value, Mapping) else {}
    found = {join(key, str(k)): v for k, v in named.items() if isinstance(v, Mapping) and "param_groups" in v}
    return found if len(found) == len(named) else {}


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _place(path: str, key: str) -> str:
    return f"'{key}'" if key else path


def _absent(what: str, key: str | None) -> NoReturn:
    raise FactUnavailable(f"there is no {what}" if key is None else f"there is no {what}: '{key}' is None")


def _groups(value: object, path: str, key: str) -> tuple[ParamGroup, ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(g, Mapping) for g in value):
        what = "has no param_groups" if value is None else f"has {described(value)} as param_groups"
        message = f"{_place(path, key)} {what}, where a list of dictionaries belongs"
        raise FactUnavailable(message, path=path, blocked=True)
    return tuple(
        ParamGroup(
            index,
            tuple(map(_parameter, _list(group.get("params")))),
            {k: v for k, v in group.items() if isinstance(k, str) and k not in ("params", "param_names")},
            tuple(n for n in _list(group.get("param_names")) if isinstance(n, str)),
        )
        for index, group in enumerate(value)
    )


def _parameter(value: object) -> int | str:
    """A parameter's number or name; 3.0 finds the state of 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) else repr(value)[:80]


def _states(value: object, groups: tuple[ParamGroup, ...], path: str, key: str) -> dict[object, ParamState]:
    if not isinstance(value, Mapping):
        what = "has no state" if value is None else f"has {described(value)} as state"
        message = f"{_place(path, key)} {what}, where a dictionary by parameter belongs"
        raise FactUnavailable(message, path=path, blocked=True)
    # Fused optimizers outside of torch count once for a whole group.
    shared = {p: g.options["step"] for g in groups if "step" in g.options for p in g.params}
    return {k: _state(v, shared.get(k)) for k, v in value.items()}


def _state(value: object, shared: object) -> ParamState:
    if not isinstance(value, Mapping):
        return ParamState(None, {}, described(value))
    tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, TensorInfo) and k != "step"}
    hidden = frozenset(k for k, v in value.items() if isinstance(k, str) and isinstance(v, Opaque))
    return ParamState(plain(value.get("step", shared)), tensors, hidden=hidden)


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) and not isinstance(value, TensorInfo) else []


def _numbers(value: object) -> tuple[object, ...]:
    return tuple(map(plain, _list(value)))

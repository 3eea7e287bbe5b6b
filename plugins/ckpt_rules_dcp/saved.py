"""What a distributed checkpoint holds, distinguished by name: model, optimizer, scheduler, counters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ckpt_rules import (
    DTYPE_BITS,
    Checkpoint,
    DistributedMetadata,
    FactUnavailable,
    Opaque,
    StoredItem,
    TensorInfo,
    conventions,
    is_count,
    plain,
    state_dicts,
)

METADATA = conventions.distributed.METADATA
OPTIMIZER = re.compile(r"(?:optimizers?|optim)\.(?:0\.)?(.+)")
SCHEDULER = re.compile(r"(?:lr_)?schedulers?\.(?:0\.)?(.+)")
MODEL = re.compile(rf"(?:{'|'.join(conventions.state_dict_keys.DISTRIBUTED_MODEL)})\.(.+)")
_OTHERS = re.compile(r"(?:train_state|trainer|dataloader|rng|rng_state|progress|extra_state|client_state)\b.*")
_COUNTER = re.compile(r"(?:.*\.)?(?P<name>step|global_step|iteration|iter_num|epoch)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_OPTION = re.compile(r"param_groups\.(.+)\.[^.]+")
_WHOLE_MODEL = conventions.state_dict_keys.DISTRIBUTED_MODEL
_WHOLE_OPTIMIZER = ("optimizer", "optim", "optimizers")
_WHOLE_SCHEDULER = ("lr_scheduler", "scheduler", "lr_schedulers", "schedulers")
_WRAPPED = re.compile(
    r"((?:[^.]+\.){1,2}?)(?:(?:optimizers?|optim)\.(?:0\.)?(?:state|param_groups)\.|(?:optimizers?|optim|model)$)"
)
_PARTS = frozenset({*_WHOLE_MODEL, *_WHOLE_OPTIMIZER, *_WHOLE_SCHEDULER})
_MOST_STEPS = 256
TRANSFORMED = "the entries of {} were written through {}, and are not read"


@dataclass(frozen=True, slots=True)
class Small:
    """Values that are read whole, objects and tensors without dimensions, and the file that each lies in.

    transformed: why values are not read, where a save wrote them through a stream extension; None where it did not
    absent:      a file that is not there and should hold some of them; None where all are there
    lead:        what the names of model and optimizer begin with, `app.`; '' where nothing wraps them
    """

    values: Mapping[str, object]
    paths: Mapping[str, str]
    damaged: Mapping[str, StoredItem]
    transformed: str | None = None
    absent: str | None = None
    lead: str = ""

    def bare(self, name: str) -> str:
        """A full name without the wrapper of model and optimizer."""
        return name.removeprefix(self.lead)


def lead_of(checkpoint: Checkpoint, path: str = METADATA) -> str:
    """The wrapper that model and optimizer were saved in, with its dot: `app.` of `{"app": AppState(model, optimizer)}`."""
    metadata = checkpoint.files.distributed(path)
    for names in (metadata.objects, metadata.tensors):
        found = {m[1] for name in names if (m := _WRAPPED.match(name)) and m[1].partition(".")[0] not in _PARTS}
        if found:
            return min(found) if len(found) == 1 else ""
    first = next(iter(metadata.tensors), "").partition(".")[0]
    inside = f"{first}.model."
    return f"{first}." if first not in _PARTS and all(n.startswith(inside) for n in metadata.tensors) else ""


def small_values(checkpoint: Checkpoint, path: str = METADATA) -> Small:
    """Every value that is not a weight and no moment; of the update counters of very many parameters, some."""
    metadata = checkpoint.files.distributed(path)
    wanted: dict[str, list[StoredItem]] = defaultdict(list)
    scalars = {name for name, tensor in metadata.tensors.items() if not tensor.shape}
    steps = 0
    for item in metadata.items.of(metadata.objects | scalars):
        is_step = item.name in scalars and item.name.endswith(".step")
        steps += is_step
        if not is_step or steps <= _MOST_STEPS:
            wanted[item.path].append(item)
    values, paths, damaged = {}, {}, {}
    lead = checkpoint.fact(lead_of, path)
    if transformed := why_unread(metadata, next(iter(wanted), path)):
        return Small({}, {}, {}, transformed, lead=lead)
    files = {e.path for e in checkpoint.listing.files()}
    absent = next((file for file in sorted(wanted) if file not in files), None)
    for file, items in wanted.items():
        for item, value in _read(checkpoint, file, items):
            if value is _UNREADABLE:
                damaged[item.name] = item
            else:
                values[item.name], paths[item.name] = value, file
    return Small(values, paths, damaged, absent=absent, lead=lead)


def all_small_values(checkpoint: Checkpoint, path: str = METADATA) -> Small:
    """The same; FactUnavailable, blocked, where some is not available."""
    small = checkpoint.fact(small_values, path)
    if small.transformed:
        raise FactUnavailable(small.transformed, path=path, blocked=True)
    if small.absent:
        raise FactUnavailable(f"{small.absent} is missing, which holds part of it", path=small.absent, blocked=True)
    return small


def why_unread(metadata: DistributedMetadata, path: str) -> str | None:
    """Why entries of a file are not what torch.save wrote, as those of `ZStandard` are not; None where they are."""
    extensions = " and ".join(sorted(metadata.transforms))
    return TRANSFORMED.format(path, extensions) if extensions else None


_UNREADABLE = object()


def _read(checkpoint: Checkpoint, path: str, items: list[StoredItem]) -> Iterable[tuple[StoredItem, object]]:
    try:
        parts = checkpoint.files.torch_parts(path, tuple((i.offset, i.nbytes) for i in items))
    except FactUnavailable:
        return ()  # ranks/chunk-coverage reports a file that is not there
    # What Accelerate and Megatron save as bytes need not be a file of torch.save.
    sound = [p.readable and not (p.container == "zip" and any(f.fatal for f in p.problems)) for p in parts]
    pairs = zip(parts, sound, strict=True)
    bare = [p.value if good else None if p.container == "pickle" else _UNREADABLE for p, good in pairs]
    return zip(items, bare, strict=True)


def model_tensors(checkpoint: Checkpoint, path: str = METADATA) -> dict[str, TensorInfo]:
    """The model's tensors at their full shapes, by the names that the model knows."""
    found, plain_names = {}, {}
    infos: dict[tuple[str, tuple[int, ...]], TensorInfo] = {}  # layers repeat, and there may be a million
    lead = checkpoint.fact(lead_of, path)
    for full, tensor in checkpoint.files.distributed(path).tensors.items():
        name = full.removeprefix(lead)
        match = MODEL.fullmatch(name)
        if not match and any(other.fullmatch(name) for other in (OPTIMIZER, SCHEDULER, _OTHERS)):
            continue
        kind = tensor.dtype, tensor.shape
        if (info := infos.get(kind)) is None:
            info = infos[kind] = TensorInfo(*kind, prod(tensor.shape) * DTYPE_BITS.get(tensor.dtype, 0) // 8)
        if match:
            found[match[1]] = info
        elif tensor.shape:
            plain_names[name] = info
    return found or plain_names


def whole_model(small: Small) -> dict[str, TensorInfo]:
    """The model's tensors where its `state_dict` is one object, as it is without flattening; empty where it is not."""
    value = _whole(small, _WHOLE_MODEL) or {}
    if any(isinstance(v, Opaque) for v in value.values()):
        # Of an object one rank's copy is stored; of a sharded tensor in it, that rank's shard.
        raise FactUnavailable("the model is one object that holds sharded tensors", path=METADATA, blocked=True)
    return {str(k): v for k, v in value.items() if isinstance(v, TensorInfo)}


def _whole(small: Small, names: Iterable[str]) -> Mapping[object, object] | None:
    found = (small.values.get(f"{small.lead}{name}", small.values.get(name)) for name in names)
    return next((v for value in found if isinstance(v := _only(value), Mapping)), None)


def _refuse_other(small: Small, names: Iterable[str], what: str, path: str) -> None:
    """FactUnavailable, blocked, where something lies under one of the names that no `state_dict` is made of."""
    for name in names:
        value = _only(small.values.get(f"{small.lead}{name}", {}))
        if not isinstance(value, Mapping | Opaque) and not (value is None and "scheduler" in name):
            said = f"'{name}' is {state_dicts.described(value)}, where the state_dict of {what} belongs"
            raise FactUnavailable(said, path=path, blocked=True)


def _only(value: object) -> object:
    """What a list of one holds, as trainers keep their only scheduler."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def optimizer_state(
    checkpoint: Checkpoint, small: Small, path: str = METADATA, named: re.Pattern[str] = OPTIMIZER
) -> Mapping[object, object] | None:
    """The optimizer's `state_dict`, put together again from its entries; None where there are none.

    named: what the full names of its entries match; its group is the name that the optimizer knows
    """
    if whole := _whole(small, _WHOLE_OPTIMIZER):
        return _unflattened(whole)
    _refuse_other(small, _WHOLE_OPTIMIZER, "an optimizer", path)
    if tensor := next(
        (n for n in _WHOLE_OPTIMIZER if f"{small.lead}{n}" in checkpoint.files.distributed(path).tensors), None
    ):
        said = f"'{tensor}' is a tensor, where the state_dict of an optimizer belongs"
        raise FactUnavailable(said, path=path, blocked=True)
    values = _values(checkpoint, small, path, named)
    return folded({match[1]: v for name, v in values.items() if (match := named.fullmatch(small.bare(name)))})


def folded(values: Mapping[str, object]) -> Mapping[object, object] | None:
    """An optimizer's `state_dict` of entries such as `state.0.weight.exp_avg` and `param_groups.0.weight.lr`; None of none."""
    state: dict[str, dict[str, object]] = defaultdict(dict)
    objects: dict[str, object] = {}
    groups: dict[int, dict[str, object]] = defaultdict(dict)
    owners: dict[str, dict[str, object]] = defaultdict(dict)
    for name, value in values.items():
        kind, _, rest = name.partition(".")
        owner, _, field = rest.rpartition(".")
        if kind == "state" and owner:
            state[owner][field] = value
            objects[rest] = value
        elif kind == "param_groups" and _NUMBER.fullmatch(owner):
            groups[int(owner)][field] = value
        elif kind == "param_groups" and owner:
            owners[owner][field] = value
    listed = [groups[n] for n in sorted(groups)] or _alike(owners)
    whole = _with_others(state, objects, _parameters(listed))
    return {"state": _by_parameter(whole, listed), "param_groups": listed} if state or listed else None


def _with_others(
    state: Mapping[str, Mapping[str, object]], objects: Mapping[str, object], names: set[str]
) -> dict[str, object]:
    """The state with what lies in the place of a parameter's dictionary: a list, of which each item is an entry, or an object."""
    found: dict[str, object] = {
        owner: list(fields.values()) if all(map(_NUMBER.fullmatch, fields)) else fields
        for owner, fields in state.items()
    }
    for name in names & objects.keys() - found.keys():
        owner = name.rpartition(".")[0]
        found[name] = objects[name]
        if owner not in names:
            found[owner] = rest = {k: v for k, v in state[owner].items() if f"{owner}.{k}" not in names}
            if not rest:
                del found[owner]
    return found


def _alike(owners: Mapping[str, Mapping[str, object]]) -> list[dict[str, object]]:
    """Parameters with equal options as one group: a flattened `state_dict` keeps the options of each by itself."""
    groups: dict[str, tuple[Mapping[str, object], list[str]]] = {}
    for owner, fields in owners.items():
        groups.setdefault(repr(sorted(fields.items(), key=lambda f: f[0])), (fields, []))[1].append(owner)
    return [{**fields, "params": params} for fields, params in groups.values()]


def is_flattened(small: Small) -> bool:
    """Whether the optimizer's options were saved by parameter, as `flatten_optimizer_state_dict` does."""
    names = (m[1] for n in small.values if (m := OPTIMIZER.fullmatch(small.bare(n))))
    owners = {m[1] for n in names if (m := _OPTION.fullmatch(n))}  # `0` is a group, `0.weight` a parameter
    return bool(owners) and not any(map(_NUMBER.fullmatch, owners))


def _unflattened(whole: Mapping[object, object]) -> Mapping[object, object]:
    state, groups = whole.get("state"), whole.get("param_groups")
    if not isinstance(state, Mapping) or not isinstance(groups, list):
        return whole
    named = {k: v for k, v in state.items() if isinstance(k, str)}
    return {**whole, "state": _by_parameter(named, [g for g in groups if isinstance(g, Mapping)])}


def _parameters(groups: Iterable[Mapping[str, object]]) -> set[str]:
    listed = [group.get("params") for group in groups]
    return {p for params in listed if isinstance(params, list | tuple) for p in params if isinstance(p, str)}


def _by_parameter(state: Mapping[str, object], groups: Iterable[Mapping[str, object]]) -> dict[object, object]:
    """The state by what the groups call their parameters: a save makes text of the numbers of those without a name."""
    names = _parameters(groups)
    return {int(k) if k not in names and _NUMBER.fullmatch(k) else k: v for k, v in state.items()}


def _values(checkpoint: Checkpoint, small: Small, path: str, named: re.Pattern[str]) -> dict[str, object]:
    tensors = {
        name: TensorInfo(t.dtype, t.shape, 0)
        for name, t in checkpoint.files.distributed(path).tensors.items()
        if t.shape and named.fullmatch(small.bare(name))
    }
    return {**tensors, **{n: v for n, v in small.values.items() if named.fullmatch(small.bare(n))}}


def scheduler_state(checkpoint: Checkpoint, small: Small) -> Mapping[object, object] | None:
    """The scheduler's `state_dict`, in one object or put together again; None where there is none."""
    values = _values(checkpoint, small, METADATA, SCHEDULER)
    found: dict[object, object] = {m[1]: v for n, v in values.items() if (m := SCHEDULER.fullmatch(small.bare(n)))}
    if not found:
        _refuse_other(small, _WHOLE_SCHEDULER, "a scheduler", METADATA)
    return found or _whole(small, _WHOLE_SCHEDULER)


def scheduler_lost(small: Small) -> str | None:
    """The scheduler's name, where None was saved under it although the optimizer's options show that there was one."""
    names = (n for n in _WHOLE_SCHEDULER if small.values.get(f"{small.lead}{n}", ...) is None)
    return next(names, None) if any(n.endswith(".initial_lr") for n in small.values) else None


def counters(small: Small) -> dict[str, str]:
    """The full name of each counter of all training, by what it counts: `global_step`, `epoch`."""
    found: dict[str, str] = {}
    for full in small.values:
        name = small.bare(full)
        match = _COUNTER.fullmatch(name)
        inside = OPTIMIZER.fullmatch(name) or SCHEDULER.fullmatch(name) or MODEL.fullmatch(name)
        if match and not inside and not name.startswith(("dataloader", "rng")):
            found.setdefault("epoch" if match["name"] == "epoch" else "global_step", full)
    return found


def update_counters(small: Small, named: re.Pattern[str] = OPTIMIZER) -> dict[str, int]:
    """The update counter of each parameter that has one, by its full name."""
    steps = {n: plain(v) for n, v in small.values.items() if n.endswith(".step") and named.fullmatch(small.bare(n))}
    return {n: int(v) for n, v in steps.items() if is_count(v)}

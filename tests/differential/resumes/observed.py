"""What came back from a save: every value under a name of its own, in a form that can be compared and sent between processes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

Observation = dict[str, str]


def flat(name: str, value: Any) -> Observation:
    """A value, its parts by their names; of tensors and arrays a digest."""
    import numpy as np
    import torch

    if isinstance(value, Mapping):
        return {k: v for key in value for k, v in flat(f"{name}/{key}", value[key]).items()} or {name: "{}"}
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return {name: f"{value.dtype} {tuple(value.shape)} {_digest(data)}"}
    if isinstance(value, np.ndarray):
        return {name: f"{value.dtype} {value.shape} {_digest(value.tobytes())}"}
    if isinstance(value, list | tuple):
        if len(value) > 64:
            return {name: _digest(repr(value).encode())}
        kind = type(value).__name__
        parts = {k: v for i, part in enumerate(value) for k, v in flat(f"{name}/{i}", part).items()}
        return {name: f"{kind} of {len(value)}", **parts}
    return {name: _number(value) if isinstance(value, int | float) else f"{type(value).__name__} {value!r}"}


def _number(value: float) -> str:
    """The same for numbers that are equal."""
    try:
        return repr(float(value) + 0.0) if float(value) == value else repr(value)  # 0.0 for -0.0
    except OverflowError:
        return repr(value)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def of_weights(model: Any) -> Observation:
    """Parameters and buffers."""
    return {k: v for name, value in model.state_dict().items() for k, v in flat(f"weights/{name}", value).items()}


def of_optimizer(optimizer: Any, named: Iterable[tuple[str, Any]]) -> Observation:
    """Groups, and the state of each parameter by the parameter's name."""
    names, seen = {id(p): name for name, p in named}, {}
    for at, group in enumerate(optimizer.param_groups):
        members = [names.get(id(p), "?") for p in group["params"]]
        seen |= flat(f"group/{at}", {k: v for k, v in group.items() if k != "params"} | {"members": members})
    for parameter, state in optimizer.state.items():
        seen |= flat(f"state/{names.get(id(parameter), '?')}", state)
    return seen


def of_generators() -> Observation:
    """The global random-number generators."""
    import numpy as np
    import torch

    return {
        "rng/python": _digest(repr(random.getstate()).encode()),
        "rng/numpy": _digest(_of_numpy(np.random.get_state())),  # noqa: NPY002 - the generator that trainers save
        "rng/torch": _digest(torch.get_rng_state().numpy().tobytes()),
    }


def _of_numpy(state: Any) -> bytes:
    left_over = state[4] if state[3] else None  # which is only used where one is said to be left
    return bytes(state[1].tobytes()) + repr((state[0], *state[2:4], left_over)).encode()


def seed_everything(seed: int) -> None:
    """Put the global generators where nothing of a save has put them."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that trainers save
    torch.manual_seed(seed)


def of_scheduler(scheduler: Any) -> Observation:
    """Its state, but for the flags that say which of its methods is running."""
    state = scheduler.state_dict() if scheduler else {}
    return flat("scheduler", {k: v for k, v in state.items() if k not in {"_is_initial", "_get_lr_called_within_step"}})


def draw() -> None:
    """Take a number from each of the global generators, as augmentation and dropout do."""
    import numpy as np
    import torch

    random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002


def differing(sound: Observation, other: Observation) -> tuple[str, ...]:
    """The names of what came back from the undamaged save and not, or otherwise, from another; more does no harm."""
    return tuple(sorted(name for name, value in sound.items() if value != other.get(name)))
